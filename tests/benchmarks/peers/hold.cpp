// The limit: std::priority_queue driven from C++, pop + push at a constant size ("hold"), ns per cycle.
// Usage: hold ENTRIES CYCLES
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <queue>
#include <random>
#include <tuple>
#include <vector>

using Entry = std::tuple<int64_t, int64_t, int64_t, void *>;

int main(int, char **argv) {
    const int64_t entries = std::atoll(argv[1]), cycles = std::atoll(argv[2]);
    std::mt19937_64 random(1);
    std::vector<std::pair<int64_t, int64_t>> keys(cycles);
    for (auto &key : keys) key = {int64_t(random() % 3), int64_t(random() % 1000000000)};
    std::priority_queue<Entry, std::vector<Entry>, std::greater<Entry>> queue;
    int64_t sequence = 0;
    for (int64_t i = 0; i < entries; i++) queue.emplace(random() % 3, random() % 1000000000, sequence++, nullptr);
    const auto began = std::chrono::steady_clock::now();
    for (const auto &[priority, deadline] : keys) {
        queue.pop();
        queue.emplace(priority, deadline, sequence++, nullptr);
    }
    const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - began;
    std::printf("%.2f\n", spent.count() / double(cycles));
}
