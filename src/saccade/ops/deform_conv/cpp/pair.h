// Pairs of bfloat16 numbers, which AVX-512 multiplies and adds up in float32, twice as many at a time as floats.
#pragma once

#include "simd.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace {

using Pair = std::uint32_t;  // the first number in the lower half

// How many numbers of a sum an operand's element holds.
template <class Operand>
constexpr int kSteps = 1;
template <>
constexpr int kSteps<Pair> = 2;

using Pairs = Vector<Pair>;

template <class Real>
INLINE Vector<Real> multiply_add(Vector<Real> sum, Vector<Real> a, Vector<Real> b) {
    return sum + a * b;
}

template <class Real>
INLINE Vector<float> multiply_add(Vector<float> sum, Pairs a, Pairs b) {
#if defined(__AVX512BF16__)
    return (Vector<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
    const Pairs high = Pairs{} + 0xffff0000u;
    sum += (Vector<float>)(a << 16) * (Vector<float>)(b << 16);
    return sum + (Vector<float>)(a & high) * (Vector<float>)(b & high);
#endif
}

// The bits of the nearest bfloat16, ties to even, in the lower half of as many bits as `value` has: of a number, or of
// each in a vector.
template <class Bits, class Value>
INLINE Bits round_to_bfloat16(Value value) {
    const Bits bits = __builtin_bit_cast(Bits, value);
    const Bits rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return value == value ? rounded : Bits{} + 0x7fc0;
}

// Write numbers as operands: next to each other in pairs of neighbours,
INLINE void put(Pair* to, Vector<float> vector) {
    const auto halves =
        __builtin_convertvector(round_to_bfloat16<Pairs>(vector), Lanes<std::uint16_t, Simd<float>::width>::type);
    std::memcpy(to, &halves, sizeof halves);
}

// or each with the number in the same place of a second vector.
INLINE void put_both(Pair* to, Vector<float> first, Vector<float> second) {
    const Pairs pairs = round_to_bfloat16<Pairs>(first) | round_to_bfloat16<Pairs>(second) << 16;
    std::memcpy(to, &pairs, sizeof pairs);
}

template <class Real>
INLINE void put(Real* to, Vector<Real> vector) {
    store<Real>(to, vector);
}

}  // namespace
