// Threads that share the work of one call: the caller's own, and others that wait for it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace sluice {

class Threads {
public:
    // So many with the caller's.
    explicit Threads(std::size_t count);
    ~Threads();
    Threads(const Threads &) = delete;
    Threads &operator=(const Threads &) = delete;

    std::size_t count() const { return workers_.size() + 1; }

    // Calls part(0) … part(parts − 1), up to count() of them, each on its own thread, and returns when all are over.
    // While another call has the threads, this one does all of its work on the caller's: there are never more at work
    // than were asked for. Rethrows what a part throws.
    void run(std::size_t parts, const std::function<void(std::size_t)> &part);

private:
    struct alignas(64) Worker {
        std::atomic<unsigned> asked{0};
        std::thread thread;
    };

    void work(Worker &worker, std::size_t number);

    std::vector<std::unique_ptr<Worker>> workers_;
    std::mutex in_use_;
    const std::function<void(std::size_t)> *part_ = nullptr;
    std::exception_ptr error_;
    alignas(64) std::atomic<std::size_t> left_{0};
    std::atomic<bool> ends_{false};
    std::mutex sleep_;
    std::condition_variable wake_;
};

}  // namespace sluice
