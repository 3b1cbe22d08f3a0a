// The limit: std::priority_queue driven from C++, pop + push at a constant size (hold model), ns per cycle.
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
    const int64_t window = (int64_t(1) << 30) / (3 + cycles / entries);
    std::mt19937_64 random(1);
    std::vector<int64_t> behind(cycles);
    for (auto &each : behind) each = int64_t(random() % (2 * window));
    std::priority_queue<Entry, std::vector<Entry>, std::greater<Entry>> queue;
    int64_t sequence = 0;
    for (int64_t i = 0; i < entries; i++) queue.emplace(0, random() % window, sequence++, nullptr);
    const auto began = std::chrono::steady_clock::now();
    for (const int64_t each : behind) {
        const int64_t head = std::get<1>(queue.top());
        queue.pop();
        queue.emplace(0, head + each, sequence++, nullptr);
    }
    const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - began;
    std::printf("%.2f\n", spent.count() / double(cycles));
}
