// Two ways to end what is due in C++, whole call in nanoseconds, the least of some rounds.
// Usage: expiry scan|index WAITING PER_MILLE
//
// scan: a std::deque in order of arrival is looked through, those in time are kept (the shape of Triton's).
// index: as cycle.cpp does it, a std::set of deadlines, a std::unordered_map by id and a std::list of each class.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <list>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

struct Request {
    uint64_t id;
    int64_t start_by;
    int klass;
    char rest[40];  // a request of a server is a cache line at least
};

static int64_t start_by_of(uint64_t number, uint64_t waiting, uint64_t expiring) {
    const bool due = number * expiring / waiting != (number + 1) * expiring / waiting;
    return due ? int64_t(number * 1000 % 100000000) : INT64_MAX;
}

static double scan(uint64_t waiting, uint64_t expiring) {
    std::deque<Request> queue, kept;
    std::vector<Request> expired;
    for (uint64_t number = 0; number < waiting; number++)
        queue.push_back({number, start_by_of(number, waiting, expiring), int(number % 3), {}});
    const auto began = std::chrono::steady_clock::now();
    for (const Request &request : queue)
        (request.start_by <= 200000000 ? (void)expired.push_back(request) : (void)kept.push_back(request));
    queue.swap(kept);
    const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - began;
    if (expired.size() != expiring) std::exit(1);
    return spent.count();
}

static double indexed(uint64_t waiting, uint64_t expiring) {
    std::list<Request> lanes[3];
    std::unordered_map<uint64_t, std::list<Request>::iterator> by_id;
    std::set<std::pair<int64_t, uint64_t>> deadlines;
    std::vector<uint64_t> expired;
    for (uint64_t number = 0; number < waiting; number++) {
        auto &lane = lanes[number % 3];
        lane.push_back({number, start_by_of(number, waiting, expiring), int(number % 3), {}});
        by_id.emplace(number, std::prev(lane.end()));
        deadlines.emplace(lane.back().start_by, number);
    }
    const auto began = std::chrono::steady_clock::now();
    while (!deadlines.empty() && deadlines.begin()->first <= 200000000) {
        const auto found = by_id.find(deadlines.begin()->second);
        expired.push_back(found->first);
        lanes[found->second->klass].erase(found->second);
        by_id.erase(found);
        deadlines.erase(deadlines.begin());
    }
    const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - began;
    if (expired.size() != expiring) std::exit(1);
    return spent.count();
}

int main(int, char **argv) {
    const uint64_t waiting = std::strtoull(argv[2], nullptr, 10);
    const uint64_t expiring = waiting * std::strtoull(argv[3], nullptr, 10) / 1000;
    double least = 1e18;
    for (int round = 0; round < 7; round++) {
        const double spent = std::string(argv[1]) == "scan" ? scan(waiting, expiring) : indexed(waiting, expiring);
        least = spent < least ? spent : least;
    }
    std::printf("%.0f\n", least);
}
