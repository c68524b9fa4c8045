// Compiled once for each instruction set, under the name SACCADE_INSTRUCTIONS.
#include "backward.h"

#ifndef SACCADE_INSTRUCTIONS
#define SACCADE_INSTRUCTIONS baseline
#endif
#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)

namespace {

bool supported() {
#if defined(__AVX512F__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("fma");
#elif defined(__AVX2__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#else
    return true;
#endif
}

void forward(const saccade::Call& call) {
    if (call.input.dtype == saccade::Dtype::float64) {
        Forward<double>(call).run();
    } else {
        Forward<float>(call).run();
    }
}

void backward(const saccade::Call& call) {
    if (call.input.dtype == saccade::Dtype::float64) {
        Backward<double>(call).run();
    } else {
        Backward<float>(call).run();
    }
}

}  // namespace

namespace saccade {
extern const Kernels SACCADE_INSTRUCTIONS;
const Kernels SACCADE_INSTRUCTIONS = {TEXT(SACCADE_INSTRUCTIONS), supported, forward, backward};
}  // namespace saccade
