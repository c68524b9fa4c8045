// Run work on the threads of torch's OpenMP runtime, which is looked up in the process. A separate pool, or a second
// copy of the runtime, would compete with torch's threads, which keep spinning for a while after each operation.
#include <atomic>

#include "call.h"

#ifndef _WIN32
#include <dlfcn.h>
#include <pthread.h>
#endif

namespace saccade {
namespace {

// The function that compilers call for `#pragma omp parallel`; the runtimes of GNU and LLVM both have it.
using Parallel = void (*)(void (*)(void*), void*, unsigned num_threads, unsigned flags);

std::atomic<bool> forked{false};

Parallel find_parallel() {
#ifdef _WIN32
    return nullptr;
#else
    // A forked child has none of the pool's threads, and would wait for them forever.
    pthread_atfork(nullptr, nullptr, [] { forked = true; });
    return reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
#endif
}

struct Work {
    Body body;
    void* context;
    std::int64_t num_items;
    std::atomic<std::int64_t> next_item{0};
    std::atomic<int> next_thread{0};
};

void take_items(void* data) {
    Work& work = *static_cast<Work*>(data);
    const int thread = work.next_thread++;
    for (std::int64_t item; (item = work.next_item++) < work.num_items;) work.body(work.context, item, thread);
}

}  // namespace

void parallel_for(int num_threads, std::int64_t num_items, Body body, void* context) {
    static const Parallel parallel = find_parallel();
    Work work{body, context, num_items};
    if (num_threads > num_items) num_threads = static_cast<int>(num_items);
    if (num_threads > 1 && parallel && !forked) {
        parallel(take_items, &work, static_cast<unsigned>(num_threads), 0);
    } else {
        take_items(&work);
    }
}

}  // namespace saccade
