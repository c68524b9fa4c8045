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
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("fma")
#if defined(__AVX512BF16__)
           && __builtin_cpu_supports("avx512bf16")
#endif
        ;
#elif defined(__AVX2__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return true;
#endif
}

// Whether bfloat16 weights are multiplied as bfloat16 numbers.
#if defined(__AVX512BF16__) || defined(SACCADE_TEST_PAIRS)
constexpr bool kHasPairs = true;
#else
constexpr bool kHasPairs = false;
#endif

// Call `use` with a zero of the type to compute in and a zero of the type of its products' operands.
template <class Use>
void with_types(const Call& call, Use use) {
    if (call.input.dtype == Dtype::float64) return use(double{}, double{});
    if constexpr (kHasPairs) {
        if (call.weight.dtype == Dtype::bfloat16) return use(float{}, Pair{});
    }
    use(float{}, float{});
}

void forward(const Call& call) {
    with_types(call, [&](auto real, auto operand) { Forward<decltype(real), decltype(operand)>(call).run(); });
}

void backward(const Call& call) {
    with_types(call, [&](auto real, auto operand) { backward<decltype(real), decltype(operand)>(call); });
}

}  // namespace

namespace saccade {
extern const Kernels SACCADE_INSTRUCTIONS;
const Kernels SACCADE_INSTRUCTIONS = {TEXT(SACCADE_INSTRUCTIONS), supported, forward, backward};
}  // namespace saccade
