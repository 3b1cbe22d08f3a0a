// What a dispatcher in C++ costs that has only the bare necessities: nanoseconds per request that is let in, granted
// and released, with a number of others waiting all the time. Usage: cycle WAITING CYCLES ROUNDS
//
// Three classes, each a std::list in order of arrival; a std::unordered_map finds a request by its id (to cancel it);
// a std::set of deadlines finds who expires; a std::unordered_map holds the leases. No guarantees, limits, weights,
// credit, order by deadline, caps, connections, statistics, events, snapshots: the difference to aimd is their price.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <list>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

struct Request {
    uint64_t id;
    int64_t start_by;
    int klass;
};

struct Dispatcher {
    std::list<Request> lanes[3];
    std::unordered_map<uint64_t, std::list<Request>::iterator> waiting;
    std::set<std::pair<int64_t, uint64_t>> deadlines;
    std::unordered_map<uint64_t, Request> running;
    uint64_t leases = 0, granted = 0;
    size_t slots = 16;

    void grant(const Request &request) {
        granted = ++leases;
        running.emplace(granted, request);
    }
    void acquire(int64_t now, uint64_t id, int klass) {
        const Request request{id, now + INT64_C(3600000000000), klass};
        if (running.size() < slots) return grant(request);
        lanes[klass].push_back(request);
        waiting.emplace(id, std::prev(lanes[klass].end()));
        deadlines.emplace(request.start_by, id);
    }
    void release(uint64_t lease) {
        running.erase(lease);
        for (auto &lane : lanes) {
            if (lane.empty()) continue;
            const Request request = lane.front();
            lane.pop_front();
            waiting.erase(request.id);
            deadlines.erase({request.start_by, request.id});
            return grant(request);
        }
    }
    void expire(int64_t now) {
        while (!deadlines.empty() && deadlines.begin()->first <= now) {
            const auto found = waiting.find(deadlines.begin()->second);
            lanes[found->second->klass].erase(found->second);
            waiting.erase(found);
            deadlines.erase(deadlines.begin());
        }
    }
};

static uint64_t state = 88172645463325252u;
static uint64_t draw() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

int main(int, char **argv) {
    const size_t others = std::strtoull(argv[1], nullptr, 10), cycles = std::strtoull(argv[2], nullptr, 10);
    const size_t rounds = std::strtoull(argv[3], nullptr, 10);
    Dispatcher dispatcher;
    int64_t now = 0;
    uint64_t request = 0;
    std::vector<uint64_t> held;
    std::vector<double> times;
    while (dispatcher.running.size() < (others ? 16 : 15) || dispatcher.waiting.size() < others) {
        const uint64_t before = dispatcher.leases;
        dispatcher.acquire(now += 1000, ++request, int(draw() % 3));
        if (dispatcher.leases != before) held.push_back(dispatcher.granted);
    }
    size_t oldest = 0;
    for (size_t round = 0; round < rounds; round++) {
        const auto began = std::chrono::steady_clock::now();
        for (size_t turn = 0; turn < cycles; turn++) {
            dispatcher.expire(now += 1000);
            if (others) {
                dispatcher.release(held[oldest]);
                held[oldest] = dispatcher.granted;
                oldest = (oldest + 1) % held.size();
                dispatcher.acquire(now, ++request, int(draw() % 3));
            } else {
                dispatcher.acquire(now, ++request, int(draw() % 3));
                dispatcher.release(dispatcher.granted);
            }
        }
        times.push_back(std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - began).count());
    }
    std::sort(times.begin(), times.end());
    std::printf("%.2f\n", times[rounds / 2] / double(cycles));
}
