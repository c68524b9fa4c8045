// A matrix product for operands that are in the cache: the caller cuts large ones into such pieces. An operand's
// elements are numbers, or pairs of bfloat16 numbers that follow each other in the sums; results are numbers.
#pragma once

#include "pair.h"

namespace {

// The rows of the left operand and of the result are a multiple of this; the caller decides what extra rows hold.
constexpr int kRowBlock = kRegisters == 32 ? 24 : 12;

// Accumulators fill three quarters of the registers; the rest holds a row of b and an element of a.
constexpr int rows_of_tile(int num_vectors) { return kRegisters * 3 / 4 / num_vectors; }

// A row's length in memory: whole vectors, an odd number of them, so that a column of them does not fall into few
// lines of the cache, and one more than needed, so that a read or a write of whole vectors can begin at any column.
template <class Real>
INLINE std::int64_t row_length(std::int64_t cols) {
    return ((cols + Simd<Real>::width - 1) / Simd<Real>::width | 1) * Simd<Real>::width + 2 * Simd<Real>::width;
}

template <class Operand>
struct Left {  // element (row, step) of the left operand
    const Operand* data;
    std::ptrdiff_t row, step;
};

template <class Real, int ROWS, int VECTORS, class Operand>
INLINE void tile_product(std::int64_t depth, Left<Operand> a, const Operand* b, std::ptrdiff_t b_row, Real* c,
                         std::ptrdiff_t c_row, bool add) {
    constexpr int width = Simd<Real>::width;
    Vector<Real> sum[ROWS][VECTORS];
#pragma GCC unroll 32
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < VECTORS; ++j) sum[i][j] = Vector<Real>{};
    const Operand* left = a.data;
    for (std::int64_t k = 0; k < depth; ++k, left += a.step, b += b_row) {
        decltype(load(b)) right[VECTORS];
#pragma GCC unroll 4
        for (int j = 0; j < VECTORS; ++j) right[j] = load(b + j * width);
#pragma GCC unroll 32
        for (int i = 0; i < ROWS; ++i) {
            const auto one = broadcast(left[i * a.row]);
#pragma GCC unroll 4
            for (int j = 0; j < VECTORS; ++j) sum[i][j] = multiply_add<Real>(sum[i][j], one, right[j]);
        }
    }
#pragma GCC unroll 32
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < VECTORS; ++j) {
            Real* place = c + i * c_row + j * width;
            store<Real>(place, add ? load(place) + sum[i][j] : sum[i][j]);
        }
}

template <class Real, int VECTORS, class Operand>
void column_of_tiles(std::int64_t rows, std::int64_t depth, Left<Operand> a, const Operand* b, std::ptrdiff_t b_row,
                     Real* c, std::ptrdiff_t c_row, bool add) {
    constexpr int step = rows_of_tile(VECTORS);
    for (std::int64_t i = 0; i < rows; i += step) {
        tile_product<Real, step, VECTORS, Operand>(depth, {a.data + i * a.row, a.row, a.step}, b, b_row, c + i * c_row,
                                                   c_row, add);
    }
}

// c = a b, or c += a b. Rows are rounded up to kRowBlock and columns to whole vectors in what is read and written.
template <class Real, class Operand>
void product(std::int64_t rows, std::int64_t cols, std::int64_t depth, Left<Operand> a, const Operand* b,
             std::ptrdiff_t b_row, Real* c, std::ptrdiff_t c_row, bool add) {
    constexpr int width = Simd<Real>::width;
    rows = round_up(rows, kRowBlock);
    std::int64_t vectors = (cols + width - 1) / width;
    // Two vectors at a time, or three once if their number is odd: one has too few sums to hide their latency.
    while (vectors > 0) {
        const int taken = vectors == 1 || vectors == 3 ? static_cast<int>(vectors) : 2;
        if (taken == 1) column_of_tiles<Real, 1>(rows, depth, a, b, b_row, c, c_row, add);
        if (taken == 2) column_of_tiles<Real, 2>(rows, depth, a, b, b_row, c, c_row, add);
        if (taken == 3) column_of_tiles<Real, 3>(rows, depth, a, b, b_row, c, c_row, add);
        b += taken * width;
        c += taken * width;
        vectors -= taken;
    }
}

}  // namespace
