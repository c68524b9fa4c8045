// Lines of numbers between the tensors, of any dtype and stride, and the kernels' own float or double.
#pragma once

#include "call.h"
#include "pair.h"

namespace {

using saccade::Dtype;
using saccade::Tensor;

template <class A, class B>
constexpr bool same = false;
template <class A>
constexpr bool same<A, A> = true;

#if defined(__aarch64__) && !defined(__clang__) && __GNUC__ < 13
using Float16 = __fp16;  // GCC's only name for it there, until version 13
#else
using Float16 = _Float16;
#endif

// Without branches and calls, so that compilers convert whole vectors.
struct BFloat16 {
    std::uint16_t bits;
    INLINE operator float() const { return __builtin_bit_cast(float, static_cast<std::uint32_t>(bits) << 16); }
    INLINE explicit BFloat16(float value) : bits(static_cast<std::uint16_t>(round_to_bfloat16<std::uint32_t>(value))) {}
};

template <class To, class From>
INLINE void copy_line(To* to, std::ptrdiff_t to_step, const From* from, std::ptrdiff_t from_step, std::int64_t n) {
    if (to_step == 1 && from_step == 1) {
        for (std::int64_t i = 0; i < n; ++i) to[i] = static_cast<To>(from[i]);
    } else {
        for (std::int64_t i = 0; i < n; ++i) to[i * to_step] = static_cast<To>(from[i * from_step]);
    }
}

template <class Number>
INLINE typename Lanes<Number, 4>::type load_four(const Number* from) {
    typename Lanes<Number, 4>::type vector;
    std::memcpy(&vector, from, sizeof vector);
    return vector;
}

// to[j * to_row + i] = from[i * from_row + j] for i, j < 4
template <class Number>
INLINE void transpose_four(Number* to, std::ptrdiff_t to_row, const Number* from, std::ptrdiff_t from_row) {
    const auto a = load_four(from), b = load_four(from + from_row);
    const auto c = load_four(from + 2 * from_row), d = load_four(from + 3 * from_row);
    const auto ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_ = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const auto cd = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_ = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    const auto e = __builtin_shufflevector(ab, cd, 0, 1, 4, 5), f = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    const auto g = __builtin_shufflevector(ab_, cd_, 0, 1, 4, 5), h = __builtin_shufflevector(ab_, cd_, 2, 3, 6, 7);
    std::memcpy(to, &e, sizeof e);
    std::memcpy(to + to_row, &f, sizeof f);
    std::memcpy(to + 2 * to_row, &g, sizeof g);
    std::memcpy(to + 3 * to_row, &h, sizeof h);
}

// to[j * to_row + i] = from[i * from_row + j]
template <class To, class From>
void transpose(To* to, std::ptrdiff_t to_row, const From* from, std::ptrdiff_t from_row, std::int64_t rows,
               std::int64_t cols) {
    std::int64_t whole_rows = 0, whole_cols = 0;
    if constexpr (same<To, From>) {
        whole_rows = rows / 4 * 4, whole_cols = cols / 4 * 4;
        // The outer loop takes four of the lines that are further apart, which then stay in the cache.
        if (to_row > from_row) {
            for (std::int64_t j = 0; j < whole_cols; j += 4)
                for (std::int64_t i = 0; i < whole_rows; i += 4)
                    transpose_four(to + j * to_row + i, to_row, from + i * from_row + j, from_row);
        } else {
            for (std::int64_t i = 0; i < whole_rows; i += 4)
                for (std::int64_t j = 0; j < whole_cols; j += 4)
                    transpose_four(to + j * to_row + i, to_row, from + i * from_row + j, from_row);
        }
    }
    for (std::int64_t i = 0; i < rows; ++i) {
        const std::int64_t first = i < whole_rows ? whole_cols : 0;
        for (std::int64_t j = first; j < cols; ++j) to[j * to_row + i] = static_cast<To>(from[i * from_row + j]);
    }
}

// to[j * to_row + i * to_col] = from[i * from_row + j * from_col] for i < rows and j < cols.
template <class To, class From>
INLINE void copy_block(To* to, std::ptrdiff_t to_row, std::ptrdiff_t to_col, const From* from, std::ptrdiff_t from_row,
                       std::ptrdiff_t from_col, std::int64_t rows, std::int64_t cols) {
    if (to_col == 1 && from_col == 1) return transpose(to, to_row, from, from_row, rows, cols);
    if (to_col == 1 && from_row == 1) {
        for (std::int64_t j = 0; j < cols; ++j) copy_line(to + j * to_row, 1, from + j * from_col, 1, rows);
        return;
    }
    for (std::int64_t i = 0; i < rows; ++i) copy_line(to + i * to_col, to_row, from + i * from_row, from_col, cols);
}

// Call `use` with the tensor's numbers from `at` on, as a pointer to their dtype.
template <class Use>
INLINE void with_dtype(const Tensor& tensor, std::ptrdiff_t at, Use use) {
    switch (tensor.dtype) {
        case Dtype::float32:
            return use(static_cast<float*>(tensor.data) + at);
        case Dtype::float64:
            return use(static_cast<double*>(tensor.data) + at);
        case Dtype::bfloat16:
            return use(static_cast<BFloat16*>(tensor.data) + at);
        case Dtype::float16:
            return use(static_cast<Float16*>(tensor.data) + at);
    }
}

// to[i] = tensor[at + i * step]
template <class Real>
void read(Real* to, const Tensor& tensor, std::ptrdiff_t at, std::ptrdiff_t step, std::int64_t n) {
    with_dtype(tensor, at, [&](const auto* from) { copy_line(to, 1, from, step, n); });
}

// Operands whose first numbers are `first[i * step]`. If operands are pairs, their second numbers are
// `second[i * step]`, or zero if there is no second.
template <class Operand>
void read_operands(Operand* to, const Tensor& tensor, std::ptrdiff_t first, std::ptrdiff_t second, bool has_second,
                   std::ptrdiff_t step, std::int64_t n) {
    if constexpr (kSteps<Operand> == 1) {
        read(to, tensor, first, step, n);
    } else {
        constexpr std::int64_t at_once = 64;
        float firsts[at_once] = {}, seconds[at_once] = {};
        Pair pairs[at_once];
        for (std::int64_t i = 0; i < n; i += at_once) {
            const std::int64_t count = least(at_once, n - i);
            read(firsts, tensor, first + i * step, step, count);
            if (has_second) read(seconds, tensor, second + i * step, step, count);
            for (std::int64_t k = 0; k < at_once; k += Simd<float>::width)
                put_both(pairs + k, load(firsts + k), load(seconds + k));
            std::memcpy(to + i, pairs, sizeof(Pair) * count);
        }
    }
}

// tensor[at + i * step] = from[i]
template <class Real>
void write(const Tensor& tensor, std::ptrdiff_t at, std::ptrdiff_t step, const Real* from, std::int64_t n) {
    with_dtype(tensor, at, [&](auto* to) { copy_line(to, step, from, 1, n); });
}

// pixels[x * row + c] = tensor[at + c * channel_step + x * step], for `channels` and n numbers of each.
template <class Real>
void read_pixels(Real* pixels, std::ptrdiff_t row, const Tensor& tensor, std::ptrdiff_t at, std::ptrdiff_t channel_step,
                 std::ptrdiff_t step, std::int64_t channels, std::int64_t n) {
    with_dtype(tensor, at,
               [&](const auto* from) { copy_block(pixels, row, 1, from, channel_step, step, channels, n); });
}

// The reverse.
template <class Real>
void write_pixels(const Real* pixels, std::ptrdiff_t row, const Tensor& tensor, std::ptrdiff_t at,
                  std::ptrdiff_t channel_step, std::ptrdiff_t step, std::int64_t channels, std::int64_t n) {
    with_dtype(tensor, at, [&](auto* to) { copy_block(to, channel_step, step, pixels, row, 1, n, channels); });
}

}  // namespace
