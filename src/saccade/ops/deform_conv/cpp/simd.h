// Vectors of the widest registers that the compiler may use in this translation unit, as GCC and Clang spell them.
//
// Everything the kernels use lies in an unnamed namespace, and nothing comes from headers with inline code: a function
// with a public name that was compiled for AVX-512 here could be what the linker keeps for an older processor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#define INLINE inline __attribute__((always_inline))

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32, kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16, kRegisters = 32;
#else
constexpr int kVectorBytes = 16, kRegisters = 16;
#endif

template <class Real>
struct Integer;
template <>
struct Integer<float> {
    using type = std::int32_t;
};
template <>
struct Integer<double> {
    using type = std::int64_t;
};
template <>
struct Integer<std::uint32_t> {
    using type = std::int32_t;
};

template <class Number, int count>
struct Lanes {
    typedef Number type __attribute__((vector_size(count * sizeof(Number))));
};

template <class Real>
struct Simd {
    // At least four lanes, so that four sums can be kept in one vector.
    static constexpr int width = kVectorBytes / sizeof(Real) < 4 ? 4 : kVectorBytes / sizeof(Real);
    using Vector = typename Lanes<Real, width>::type;
    using Bits = typename Lanes<typename Integer<Real>::type, width>::type;
};

template <class Real>
using Vector = typename Simd<Real>::Vector;
// As many 32-bit integers.
template <class Real>
using Whole = typename Lanes<std::int32_t, Simd<Real>::width>::type;

template <class Real>
INLINE Vector<Real> load(const Real* from) {
    Vector<Real> vector;
    std::memcpy(&vector, from, sizeof vector);
    return vector;
}

template <class Real>
INLINE void store(Real* to, Vector<Real> vector) {
    std::memcpy(to, &vector, sizeof vector);
}

template <class Real>
INLINE Whole<Real> load_whole(const std::int32_t* from) {
    Whole<Real> vector;
    std::memcpy(&vector, from, sizeof vector);
    return vector;
}

template <class Real>
INLINE void store_whole(std::int32_t* to, Whole<Real> vector) {
    std::memcpy(to, &vector, sizeof vector);
}

template <class Real>
INLINE Vector<Real> broadcast(Real value) {
    return value - Vector<Real>{};  // which compilers know to change nothing, unlike an addition of zero
}

// All bits of the first `count` lanes.
template <class Real>
INLINE typename Simd<Real>::Bits first_lanes(int count) {
    typename Simd<Real>::Bits bits;
    for (int lane = 0; lane < Simd<Real>::width; ++lane) bits[lane] = lane < count ? -1 : 0;
    return bits;
}

template <class Real>
INLINE Vector<Real> keep(Vector<Real> vector, typename Simd<Real>::Bits bits) {
    return (Vector<Real>)((typename Simd<Real>::Bits)vector & bits);
}

// Add the halves of a vector until four lanes are left.
template <class Real, int count>
INLINE typename Lanes<Real, 4>::type fold(const typename Lanes<Real, count>::type& vector) {
    if constexpr (count == 4) {
        return vector;
    } else {
        typename Lanes<Real, count / 2>::type low, high;
        std::memcpy(&low, &vector, sizeof low);
        std::memcpy(&high, reinterpret_cast<const char*>(&vector) + sizeof low, sizeof high);
        return fold<Real, count / 2>(low + high);
    }
}

// Write the sums over lanes of four vectors next to each other.
template <class Real>
INLINE void store_sums(Real* to, Vector<Real> v0, Vector<Real> v1, Vector<Real> v2, Vector<Real> v3) {
    constexpr int width = Simd<Real>::width;
    const auto a = fold<Real, width>(v0), b = fold<Real, width>(v1);
    const auto c = fold<Real, width>(v2), d = fold<Real, width>(v3);
    const auto ab = __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const auto cd = __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);
    const auto sums = __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    std::memcpy(to, &sums, sizeof sums);
}

INLINE std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
INLINE std::int64_t most(std::int64_t a, std::int64_t b) { return a > b ? a : b; }
INLINE std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

}  // namespace
