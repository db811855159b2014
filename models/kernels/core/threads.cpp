#include "threads.h"

#include <chrono>

namespace sluice {
namespace {

// How long a thread looks for more work before it sleeps: the next call of a model comes within that, and waking a
// thread takes as long as a small product.
constexpr std::chrono::microseconds kWatchful{50};

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

// Whether it came true while it was worth waiting for.
template <typename Condition>
bool soon(Condition condition) {
    const auto end = std::chrono::steady_clock::now() + kWatchful;
    do {
        for (int i = 0; i < 64; ++i) {
            if (condition()) return true;
            pause();
        }
    } while (std::chrono::steady_clock::now() < end);
    return false;
}

}  // namespace

Threads::Threads(std::size_t count) {
    for (std::size_t i = 1; i < count; ++i) {
        workers_.push_back(std::make_unique<Worker>());
        Worker &worker = *workers_.back();
        worker.thread = std::thread([this, &worker, i] { work(worker, i); });
    }
}

Threads::~Threads() {
    {
        const std::lock_guard<std::mutex> lock(sleep_);
        ends_ = true;
    }
    wake_.notify_all();
    for (const auto &worker : workers_) worker->thread.join();
}

void Threads::run(std::size_t parts, const std::function<void(std::size_t)> &part) {
    const std::unique_lock<std::mutex> own(in_use_, std::try_to_lock);
    if (!own.owns_lock() || parts < 2) {
        for (std::size_t i = 0; i < parts; ++i) part(i);
        return;
    }
    part_ = &part;
    error_ = nullptr;
    left_ = parts - 1;
    {
        // Under the lock, so that none falls asleep between looking and waiting.
        const std::lock_guard<std::mutex> lock(sleep_);
        for (std::size_t i = 1; i < parts; ++i) workers_[i - 1]->asked.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    std::exception_ptr error;
    try {
        part(0);
    } catch (...) {
        error = std::current_exception();
    }
    const auto over = [this] { return left_.load(std::memory_order_acquire) == 0; };
    while (!soon(over)) std::this_thread::yield();
    if (!error) error = error_;
    if (error) std::rethrow_exception(error);
}

void Threads::work(Worker &worker, std::size_t number) {
    unsigned done = 0;
    const auto wanted = [&] { return worker.asked.load(std::memory_order_acquire) != done || ends_; };
    while (true) {
        if (!soon(wanted)) {
            std::unique_lock<std::mutex> lock(sleep_);
            wake_.wait(lock, wanted);
        }
        if (worker.asked.load(std::memory_order_acquire) == done) return;
        ++done;
        try {
            (*part_)(number);
        } catch (...) {
            const std::lock_guard<std::mutex> lock(sleep_);
            error_ = std::current_exception();
        }
        left_.fetch_sub(1, std::memory_order_release);
    }
}

}  // namespace sluice
