// The convolution: tiles of positions, whose samples are gathered into columns that meet the weights in the cache.
#pragma once

#include "buffer.h"
#include "matmul.h"
#include "sampling.h"

namespace {

// Positions in a tile, and about how many columns (tap, channel) are gathered before they are multiplied: 96 x 256
// floats stay in the second-level cache of any core of the last ten years, 256 x 16 weights in the first.
constexpr std::int64_t kTile = 96, kColumns = 256;
// Weights are copied for a block of output channels at a time, so that the copy stays below this size; every block
// gathers the samples again. This keeps extra memory small if weights are larger than images.
constexpr std::int64_t kWeightBytes = 640 << 10;

// Cut each image's positions into equal tiles, in whole blocks of rows.
class Tiles {
  public:
    explicit Tiles(const Call& call) : positions_(call.positions()) {
        const std::int64_t num = (positions_ + kTile - 1) / kTile;
        length_ = round_up((positions_ + num - 1) / num, kRowBlock);
        per_image_ = (positions_ + length_ - 1) / length_;
    }
    std::int64_t per_image() const { return per_image_; }
    // The length of arrays with one number per position that are read and written in whole vectors.
    std::int64_t room() const { return round_up(length_, 16); }
    // Tiles are numbered consecutively over all images.
    Tile operator()(std::int64_t index) const {
        const std::int64_t first = index % per_image_ * length_;
        return {index / per_image_, first, least(length_, positions_ - first)};
    }

  private:
    std::int64_t positions_, length_, per_image_;
};

// The tables of all images and runs.
template <class Real>
class Tables {
  public:
    Tables(const Call& call, std::int64_t longest_run)
        : num_runs(list_runs(call, longest_run, nullptr)),
          runs_(num_runs),
          starts_(num_runs),
          data_(lay_out(call, longest_run)) {
        const std::int64_t lines = call.size[0] + 3;
        in_parallel(call.num_threads, num_runs * call.batch * lines, [&](std::int64_t item, int) {
            const std::int64_t index = item / lines / call.batch, image = item / lines % call.batch;
            const Table<Real> table(call, run(index));
            Real* data = data_.get() + starts_.get()[index] + image * table.size;
            fill_line(call, run(index), table, data, image, item % lines - 1);
        });
    }
    const Run& run(std::int64_t index) const { return runs_.get()[index]; }
    const Real* data(std::int64_t index, std::int64_t image, const Table<Real>& table) const {
        return data_.get() + starts_.get()[index] + image * table.size;
    }
    const std::int64_t num_runs;

  private:
    std::int64_t lay_out(const Call& call, std::int64_t longest_run) {
        list_runs(call, longest_run, runs_.get());
        std::int64_t total = 0;
        for (std::int64_t i = 0; i < num_runs; ++i) {
            starts_.get()[i] = total;
            total += call.batch * Table<Real>(call, run(i)).size;
        }
        return total;
    }

    Buffer<Run> runs_;
    Buffer<std::int64_t> starts_;
    Buffer<Real> data_;
};

// The memory in which a thread finds the samples of a tile.
template <class Real>
class Finders {
  public:
    Finders(const Call& call, std::int64_t room)
        : call_(call),
          room_(room),
          ints_(call.num_threads, 3 * room),
          reals_(call.num_threads, Samples<Real>::num_reals(room) + Locator<Real>::num_reals(room)) {}
    Samples<Real> samples(int thread) const { return {ints_.of(thread), reals_.of(thread), room_}; }
    Locator<Real> locator(int thread) const {
        return {call_, ints_.of(thread) + room_, reals_.of(thread) + Samples<Real>::num_reals(room_), room_};
    }

  private:
    const Call& call_;
    std::int64_t room_;
    PerThread<std::int32_t> ints_;
    PerThread<Real> reals_;
};

INLINE ptrdiff_t weight_at(const Call& call, const Tensor& weight, std::int64_t tap, std::int64_t channel_out,
                           std::int64_t channel_in_group) {
    return channel_out * weight.stride[0] + channel_in_group * weight.stride[1] +
           tap / call.kernel[1] * weight.stride[2] + tap % call.kernel[1] * weight.stride[3];
}

template <class Real, class Operand>
class Forward {
  public:
    explicit Forward(const Call& call)
        : call_(call),
          tables_(call, kColumns),
          tiles_(call),
          finders_(call, tiles_.room()),
          columns_row_(row_length<Real>(kColumns)),
          columns_(call.num_threads, tiles_.room() * columns_row_),
          per_group_(call.channels_out / call.groups),
          depths_(call.groups) {
        for (std::int64_t group = 0; group < call.groups; ++group) depths_.get()[group] = 0;
        for (std::int64_t i = 0; i < tables_.num_runs; ++i)
            depths_.get()[tables_.run(i).group] += depth_of(tables_.run(i));
        for (std::int64_t group = 0; group < call.groups; ++group) depth_ = most(depth_, depths_.get()[group]);
    }

    void run() const {
        const std::int64_t rows = call_.groups * call_.taps() * depth_;
        const std::int64_t bytes = per_group_ * rows * static_cast<std::int64_t>(sizeof(Operand));
        const std::int64_t parts = (bytes + kWeightBytes - 1) / kWeightBytes;
        const std::int64_t block = least(per_group_, round_up((per_group_ + parts - 1) / parts, Simd<Real>::width));
        const Buffer<Operand> weights(rows * row_length<Real>(block));
        const PerThread<Real> sums(call_.num_threads, tiles_.room() * row_length<Real>(block));
        for (std::int64_t first = 0; first < per_group_; first += block) {
            const std::int64_t count = least(block, per_group_ - first);
            arrange_weights(first, count, weights.get());
            convolve(first, count, weights.get(), sums);
        }
    }

  private:
    // The number of steps of the sum for each tap of a run.
    static std::int64_t depth_of(const Run& run) { return (run.count + kSteps<Operand> - 1) / kSteps<Operand>; }

    std::int64_t first_row(std::int64_t group) const { return group * call_.taps() * depth_; }

    // The weights of some output channels: for each group one row per step of the sum, tap by tap and run by run, with
    // one element per output channel.
    void arrange_weights(std::int64_t first, std::int64_t count, Operand* weights) const {
        const std::int64_t row = row_length<Real>(count), taps = call_.taps();
        in_parallel(call_.num_threads, tables_.num_runs * taps, [&](std::int64_t item, int) {
            const std::int64_t index = item / taps, tap = item % taps;
            const Run& run = tables_.run(index);
            std::int64_t before = first_row(run.group) + tap * depths_.get()[run.group];
            for (std::int64_t i = 0; i < index; ++i)
                if (tables_.run(i).group == run.group) before += depth_of(tables_.run(i));
            Operand* to = weights + before * row;
            for (std::int64_t c = 0; c < run.count; c += kSteps<Operand>, to += row) {
                const ptrdiff_t at =
                    weight_at(call_, call_.weight, tap, run.group * per_group_ + first, run.in_group + c);
                read_operands(to, call_.weight, at, at + call_.weight.stride[1], c + 1 < run.count,
                              call_.weight.stride[0], count);
                std::memset(static_cast<void*>(to + count), 0, sizeof(Operand) * (row - count));
            }
        });
    }

    // Output channels `first` to `first + count` of each group.
    void convolve(std::int64_t first, std::int64_t count, const Operand* weights,
                  const PerThread<Real>& all_sums) const {
        const ptrdiff_t row = row_length<Real>(count), sums_row = row;
        const std::int64_t num_tiles = call_.batch * tiles_.per_image();
        in_parallel(call_.num_threads, call_.groups * num_tiles, [&](std::int64_t item, int thread) {
            const std::int64_t group = item / num_tiles;
            const Tile tile = tiles_(item % num_tiles);
            const Operand *left = columns_.of(thread), *right = weights + first_row(group) * row;
            Real* sums = all_sums.of(thread);
            bool add = false;
            gather_columns(tile, group, thread, [&](std::int64_t depth) {
                product<Real, Operand>(tile.count, count, depth, {left, columns_row_, 1}, right, row, sums, sums_row,
                                       add);
                right += depth * row;
                add = true;
            });
            write_sums(tile, group * per_group_ + first, count, sums, sums_row);
        });
    }

    // Sample all taps and channels of a group, and call `use(steps of the sum)` each time the columns are full.
    template <class Use>
    void gather_columns(const Tile& tile, std::int64_t group, int thread, Use use) const {
        Samples<Real> samples = finders_.samples(thread);
        Locator<Real> locator = finders_.locator(thread);
        locator.start(tile);
        std::int64_t filled = 0;
        for (std::int64_t tap = 0; tap < call_.taps(); ++tap) {
            std::int64_t located_group = -1, located_pixel = -1;
            for (std::int64_t i = 0; i < tables_.num_runs; ++i) {
                const Run& run = tables_.run(i);
                if (run.group != group) continue;
                const Table<Real> table(call_, run);
                if (located_group != run.offset_group || located_pixel != table.pixel) {
                    locator.locate(run.offset_group, tap, table, samples);
                    located_group = run.offset_group, located_pixel = table.pixel;
                }
                if ((filled + depth_of(run)) * kSteps<Operand> > kColumns) use(filled), filled = 0;
                gather(samples, tile.count, table, tables_.data(i, tile.image, table), columns_.of(thread) + filled,
                       columns_row_);
                filled += depth_of(run);
            }
        }
        use(filled);
    }

    void write_sums(const Tile& tile, std::int64_t first, std::int64_t count, Real* sums, std::int64_t sums_row) const {
        for (std::int64_t n = 0; call_.bias.data && n < count; ++n) {
            Real bias = 0;
            read(&bias, call_.bias, (first + n) * call_.bias.stride[0], 1, 1);
            for (std::int64_t i = 0; i < tile.count; ++i) sums[i * sums_row + n] += bias;
        }
        const Tensor& out = call_.out;
        for_lines(call_, tile, out, first, [&](std::int64_t i, ptrdiff_t at, std::int64_t n) {
            write_pixels(sums + i * sums_row, sums_row, out, at, out.stride[1], out.stride[3], count, n);
        });
    }

    const Call& call_;
    const Tables<Real> tables_;
    const Tiles tiles_;
    const Finders<Real> finders_;
    const ptrdiff_t columns_row_;
    const PerThread<Operand> columns_;
    const std::int64_t per_group_;
    const Buffer<std::int64_t> depths_;  // of each group
    std::int64_t depth_ = 0;             // the largest
};

}  // namespace
