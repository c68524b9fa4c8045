// Images as tables of pixels, channels last, and the bilinear samples that are taken from them.
#pragma once

#include "convert.h"

namespace {

using saccade::Call;
using std::ptrdiff_t;

// A run of input channels that belong to one group of the convolution and move with one offset group. All work on
// channels is done by such runs, so that any two kinds of groups may cut across each other.
struct Run {
    std::int64_t first, count;
    std::int64_t group, offset_group;
    std::int64_t in_group;  // how many channels of its group come before it
};

// The runs in the order of channels, none longer than `longest`. Returns how many; `runs` may be null to count.
std::int64_t list_runs(const Call& call, std::int64_t longest, Run* runs) {
    const std::int64_t per_group = call.channels / call.groups, per_offset_group = call.channels / call.offset_groups;
    std::int64_t num_runs = 0;
    for (std::int64_t c = 0; c < call.channels; ++num_runs) {
        const std::int64_t group = c / per_group, offset_group = c / per_offset_group;
        const std::int64_t end = least((group + 1) * per_group, (offset_group + 1) * per_offset_group);
        const std::int64_t count = least(end - c, longest);
        if (runs) runs[num_runs] = {c, count, group, offset_group, c % per_group};
        c += count;
    }
    return num_runs;
}

// The layout of one image's share of a run: each pixel's channels, in whole vectors, with a border of zeros one pixel
// wide around the image and a further line of zeros below. Any sample that touches the image thus finds its four
// pixels, and a sample outside reads the four zeros at the beginning of the last two lines.
template <class Real>
struct Table {
    std::int64_t height, width;
    ptrdiff_t pixel, line, size;

    Table(const Call& call, const Run& run)
        : height(call.size[0]),
          width(call.size[1]),
          pixel(round_up(run.count, Simd<Real>::width)),
          line((width + 2) * pixel),
          size((height + 3) * line) {}
};

// Fill a line of a table, with its border; line -1, `height` and `height + 1` are zeros.
template <class Real>
void fill_line(const Call& call, const Run& run, const Table<Real>& table, Real* data, std::int64_t image,
               std::int64_t y) {
    Real* line = data + (y + 1) * table.line;
    if (y < 0 || y >= table.height) {
        std::memset(line, 0, sizeof(Real) * table.line);
        return;
    }
    std::memset(line, 0, sizeof(Real) * table.pixel);
    std::memset(line + table.line - table.pixel, 0, sizeof(Real) * table.pixel);
    line += table.pixel;
    const Tensor& input = call.input;
    const ptrdiff_t at = image * input.stride[0] + run.first * input.stride[1] + y * input.stride[2];
    read_pixels(line, table.pixel, input, at, input.stride[1], input.stride[3], run.count, table.width);
    for (std::int64_t x = 0; run.count < table.pixel && x < table.width; ++x)
        std::memset(line + x * table.pixel + run.count, 0, sizeof(Real) * (table.pixel - run.count));
}

// A number of consecutive output positions of one image: what a thread works on at a time.
struct Tile {
    std::int64_t image, first, count;
};

// Where the samples of one tap and offset group lie, for each position of a tile: the upper left pixel, how far below
// and right of it, and the factor from the mask. Whole vectors of positions are read and written.
template <class Real>
struct Samples {
    std::int32_t* at;
    Real *down, *right, *mask;
    Real* weight[4];  // of the upper left, upper right, lower left, lower right pixel, with the mask

    static std::int64_t num_reals(std::int64_t count) { return 7 * count; }

    Samples(std::int32_t* ints, Real* reals, std::int64_t count)
        : at(ints), down(reals), right(reals + count), mask(reals + 2 * count) {
        for (int corner = 0; corner < 4; ++corner) weight[corner] = reals + (3 + corner) * count;
    }
};

// Positions follow an image line by line. If the memory of a tensor (batch, channel, y, x) does too, a tile is one line
// of numbers; otherwise it is one for each line of the image. Calls use(index in the tile, place of the first number,
// count) for each.
template <class Use>
INLINE void for_lines(const Call& call, const Tile& tile, const Tensor& tensor, std::int64_t channel, Use use) {
    const ptrdiff_t at = tile.image * tensor.stride[0] + channel * tensor.stride[1];
    const std::int64_t width = call.out_size[1];
    if (tensor.stride[2] == width * tensor.stride[3]) return use(0, at + tile.first * tensor.stride[3], tile.count);
    for (std::int64_t i = 0, n; i < tile.count; i += n) {
        const std::int64_t y = (tile.first + i) / width, x = (tile.first + i) % width;
        n = least(width - x, tile.count - i);
        use(i, at + y * tensor.stride[2] + x * tensor.stride[3], n);
    }
}

// The whole and the fractional part of offsets. Kept apart from the tap's own whole position, an offset loses no
// precision to it, and the floor is that of the exact sum.
template <class Real>
INLINE void split(Vector<Real> offset, Whole<Real>& whole, Vector<Real>& fraction) {
    const Vector<Real> far = broadcast<Real>(1 << 29);
    offset = offset > -far ? offset : -far;  // NaN too
    offset = offset < far ? offset : far;
    whole = __builtin_convertvector(offset, Whole<Real>);
    Vector<Real> floor = __builtin_convertvector(whole, Vector<Real>);
    whole += __builtin_convertvector(offset < floor, Whole<Real>);  // a comparison that holds is -1
    floor = __builtin_convertvector(whole, Vector<Real>);
    fraction = offset - floor;
}

template <class Real>
class Locator {
  public:
    static std::int64_t num_reals(std::int64_t count) { return 2 * count; }

    // `ints` and `reals` have room for two numbers a position.
    Locator(const Call& call, std::int32_t* ints, Real* reals, std::int64_t room)
        : call_(call), y_(ints), x_(ints + room), dy_(reals), dx_(reals + room) {}

    void start(const Tile& tile) {
        tile_ = tile;
        const std::int64_t width = call_.out_size[1];
        std::int64_t y = tile.first / width, x = tile.first % width;
        for (std::int64_t i = 0; i < tile.count; ++i) {
            y_[i] = static_cast<std::int32_t>(y * call_.stride[0] - call_.padding[0]);
            x_[i] = static_cast<std::int32_t>(x * call_.stride[1] - call_.padding[1]);
            if (++x == width) x = 0, ++y;
        }
    }

    void locate(std::int64_t offset_group, std::int64_t tap, const Table<Real>& table, Samples<Real>& samples) {
        const std::int64_t channel = offset_group * call_.taps() + tap;
        read_positions(dy_, call_.offset, 2 * channel);
        read_positions(dx_, call_.offset, 2 * channel + 1);
        if (call_.mask.data) {
            read_positions(samples.mask, call_.mask, channel);
        } else {
            for (std::int64_t i = 0; i < tile_.count; ++i) samples.mask[i] = 1;
        }
        using W = Whole<Real>;
        const W tap_y = W{} + static_cast<std::int32_t>(tap / call_.kernel[1] * call_.dilation[0]);
        const W tap_x = W{} + static_cast<std::int32_t>(tap % call_.kernel[1] * call_.dilation[1]);
        const W height = W{} + static_cast<std::int32_t>(table.height),
                width = W{} + static_cast<std::int32_t>(table.width);
        const W pixel = W{} + static_cast<std::int32_t>(table.pixel),
                line = W{} + static_cast<std::int32_t>(table.line);
        for (std::int64_t i = 0; i < tile_.count; i += Simd<Real>::width) {
            W y, x;
            Vector<Real> down, right;
            split<Real>(load(dy_ + i), y, down);
            split<Real>(load(dx_ + i), x, right);
            y += load_whole<Real>(y_ + i) + tap_y;
            x += load_whole<Real>(x_ + i) + tap_x;
            const W inside = (y >= -1) & (y < height) & (x >= -1) & (x < width);
            y = inside ? y + 1 : height + 1;
            x = (x + 1) & inside;
            store_whole<Real>(samples.at + i, y * line + x * pixel);
            store<Real>(samples.down + i, down);
            store<Real>(samples.right + i, right);
            const Vector<Real> mask = load(samples.mask + i), lower = mask * down, upper = mask - lower;
            store<Real>(samples.weight[3] + i, lower * right);
            store<Real>(samples.weight[2] + i, lower - lower * right);
            store<Real>(samples.weight[1] + i, upper * right);
            store<Real>(samples.weight[0] + i, upper - upper * right);
        }
    }

  private:
    void read_positions(Real* to, const Tensor& tensor, std::int64_t channel) {
        for_lines(call_, tile_, tensor, channel,
                  [&](std::int64_t i, ptrdiff_t at, std::int64_t n) { read(to + i, tensor, at, tensor.stride[3], n); });
    }

    const Call& call_;
    Tile tile_{};
    std::int32_t *y_, *x_;
    Real *dy_, *dx_;
};

// One sample of a run's channels.
template <class Real>
struct Sample {
    const Real *upper, *lower;
    ptrdiff_t pixel;
    Vector<Real> w0, w1, w2, w3;

    INLINE Sample(const Samples<Real>& samples, std::int64_t i, const Table<Real>& table, const Real* data)
        : upper(data + samples.at[i]),
          lower(upper + table.line),
          pixel(table.pixel),
          w0(broadcast(samples.weight[0][i])),
          w1(broadcast(samples.weight[1][i])),
          w2(broadcast(samples.weight[2][i])),
          w3(broadcast(samples.weight[3][i])) {}

    // The channels from `c` on, a vector of them.
    INLINE Vector<Real> operator()(ptrdiff_t c) const {
        const Vector<Real> above = w0 * load(upper + c) + w1 * load(upper + pixel + c);
        return above + (w2 * load(lower + c) + w3 * load(lower + pixel + c));
    }
};

// Sample a run's channels as a row of operands for each position. Whole vectors are written: what lies behind the run's
// channels in a row is overwritten.
template <class Real, class Operand>
void gather(const Samples<Real>& samples, std::int64_t count, const Table<Real>& table, const Real* data, Operand* to,
            ptrdiff_t to_row) {
    for (std::int64_t i = 0; i < count; ++i, to += to_row) {
        const Sample<Real> sample(samples, i, table, data);
        for (ptrdiff_t c = 0; c < table.pixel; c += Simd<Real>::width) put(to + c / kSteps<Operand>, sample(c));
    }
}

// The same for sums over positions: a row holds as many positions as an operand's element does numbers.
template <class Real, class Operand>
void gather_for_sums(const Samples<Real>& samples, std::int64_t count, const Table<Real>& table, const Real* data,
                     Operand* to, ptrdiff_t to_row) {
    if constexpr (kSteps<Operand> == 1) {
        gather(samples, count, table, data, to, to_row);
    } else {
        for (std::int64_t i = 0; i < count; i += 2, to += to_row) {
            const Sample<Real> first(samples, i, table, data), second(samples, least(i + 1, count - 1), table, data);
            const bool alone = i + 1 == count;
            for (ptrdiff_t c = 0; c < table.pixel; c += Simd<Real>::width)
                put_both(to + c, first(c), alone ? Vector<Real>{} : second(c));
        }
    }
}

// The transpose of `gather`: add the gradients of samples to that of the image, if SCATTER; and if PROJECT, write the
// inner products of each sample's gradient with its four pixels.
template <class Real, bool SCATTER, bool PROJECT>
void scatter(const Samples<Real>& samples, std::int64_t count, const Table<Real>& table, std::int64_t channels,
             const Real* __restrict data, const Real* __restrict grads, ptrdiff_t grads_row, Real* __restrict grad_data,
             Real* __restrict products) {
    constexpr int width = Simd<Real>::width;
    const auto last_lanes = first_lanes<Real>(static_cast<int>(channels - (table.pixel - width)));
    const ptrdiff_t pixel = table.pixel, line = table.line;
    for (std::int64_t i = 0; i < count; ++i, grads += grads_row, products += 4) {
        const Vector<Real> w0 = broadcast(samples.weight[0][i]), w1 = broadcast(samples.weight[1][i]);
        const Vector<Real> w2 = broadcast(samples.weight[2][i]), w3 = broadcast(samples.weight[3][i]);
        Vector<Real> p0{}, p1{}, p2{}, p3{};
        const Real* from = data + samples.at[i];
        Real* to = grad_data + samples.at[i];
        for (ptrdiff_t c = 0; c < pixel; c += width, from += width, to += width) {
            Vector<Real> grad = load(grads + c);
            if (c + width == pixel) grad = keep<Real>(grad, last_lanes);
            if constexpr (PROJECT) {
                p0 += grad * load(from);
                p1 += grad * load(from + pixel);
                p2 += grad * load(from + line);
                p3 += grad * load(from + line + pixel);
            }
            if constexpr (SCATTER) {
                store<Real>(to, load(to) + w0 * grad);
                store<Real>(to + pixel, load(to + pixel) + w1 * grad);
                store<Real>(to + line, load(to + line) + w2 * grad);
                store<Real>(to + line + pixel, load(to + line + pixel) + w3 * grad);
            }
        }
        if constexpr (PROJECT) store_sums<Real>(products, p0, p1, p2, p3);
    }
}

}  // namespace
