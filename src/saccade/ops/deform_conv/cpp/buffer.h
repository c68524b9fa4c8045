// Memory that a kernel works in, aligned to the lines of the cache.
#pragma once

#include <cstdlib>
#include <new>

#include "call.h"
#include "simd.h"

namespace {

template <class Number>
class Buffer {
  public:
    explicit Buffer(std::int64_t count) {
        const std::size_t bytes =
            static_cast<std::size_t>(round_up(count * static_cast<std::int64_t>(sizeof(Number)) + 1, 64));
        data_ = static_cast<Number*>(::aligned_alloc(64, bytes));
        if (!data_) throw std::bad_alloc();
    }
    ~Buffer() { ::free(data_); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    Number* get() const { return data_; }

  private:
    Number* data_;
};

// One such piece for each thread.
template <class Number>
class PerThread {
  public:
    PerThread(int num_threads, std::int64_t count) : each_(round_up(count, 64)), all_(num_threads * each_) {}
    Number* of(int thread) const { return all_.get() + thread * each_; }

  private:
    std::int64_t each_;
    Buffer<Number> all_;
};

template <class Function>
void in_parallel(int num_threads, std::int64_t num_items, Function function) {
    saccade::parallel_for(
        num_threads, num_items,
        [](void* context, std::int64_t item, int thread) { (*static_cast<Function*>(context))(item, thread); },
        &function);
}

}  // namespace
