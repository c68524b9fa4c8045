// The convolution: tiles of positions, whose samples are gathered into columns that meet the weights in the cache.
#pragma once

#include "buffer.h"
#include "matmul.h"
#include "sampling.h"

namespace {

// Positions in a tile, and about how many columns (tap, channel) are gathered before they are multiplied: 96 x 256
// floats stay in the second-level cache of any core of the last ten years, 256 x 16 weights in the first.
constexpr std::int64_t kTile = 96, kColumns = 256;
// Weights are rearranged for so many output channels at a time that the copy stays below this; what the samples cost
// is then paid again for the next ones. It keeps extra memory small where weights are larger than images.
constexpr std::int64_t kWeightBytes = 1 << 20;

// Cut each image's positions into equal tiles, in whole blocks of rows.
class Tiles {
  public:
    explicit Tiles(const Call& call, std::int64_t longest = kTile) : positions_(call.positions()) {
        const std::int64_t num = (positions_ + longest - 1) / longest;
        length_ = round_up((positions_ + num - 1) / num, kRowBlock);
        per_image_ = (positions_ + length_ - 1) / length_;
    }
    std::int64_t per_image() const { return per_image_; }
    // How long arrays with a number for each position must be, to be read and written in whole vectors.
    std::int64_t room() const { return round_up(length_, 16); }
    Tile operator()(std::int64_t image, std::int64_t index) const {
        return {image, index * length_, least(length_, positions_ - index * length_)};
    }

  private:
    std::int64_t positions_, length_, per_image_;
};

// Fill the tables of all runs and images, run after run.
template <class Real>
void fill_tables(const Call& call, const Run* runs, std::int64_t num_runs, const std::int64_t* starts, Real* tables) {
    const std::int64_t lines = call.size[0] + 3;
    in_parallel(call.num_threads, num_runs * call.batch * lines, [&](std::int64_t item, int) {
        const std::int64_t run = item / (call.batch * lines), image = item / lines % call.batch;
        const Table<Real> table(call, runs[run]);
        fill_line(call, runs[run], table, tables + starts[run] + image * table.size, image, item % lines - 1);
    });
}

template <class Real>
std::int64_t table_starts(const Call& call, const Run* runs, std::int64_t num_runs, std::int64_t* starts) {
    std::int64_t total = 0;
    for (std::int64_t i = 0; i < num_runs; ++i) {
        starts[i] = total;
        total += call.batch * Table<Real>(call, runs[i]).size;
    }
    return total;
}

template <class Real>
class Forward {
  public:
    explicit Forward(const Call& call)
        : call_(call),
          num_runs_(list_runs(call, kColumns, nullptr)),
          runs_(num_runs_),
          starts_(num_runs_),
          tables_((list_runs(call, kColumns, runs_.get()),
                   table_starts<Real>(call, runs_.get(), num_runs_, starts_.get()))),
          tiles_(call),
          depth_(call.taps() * (call.channels / call.groups)),
          per_group_(call.channels_out / call.groups) {}

    void run() {
        fill_tables(call_, runs_.get(), num_runs_, starts_.get(), tables_.get());
        const std::int64_t row_bytes = call_.groups * depth_ * sizeof(Real);
        const std::int64_t parts = (per_group_ * row_bytes + kWeightBytes - 1) / kWeightBytes;
        const std::int64_t block = least(per_group_, round_up((per_group_ + parts - 1) / parts, Simd<Real>::width));
        const Buffer<Real> weights(call_.groups * depth_ * row_length<Real>(block));
        const Workspace work(call_, tiles_.room(), row_length<Real>(block));
        for (std::int64_t first = 0; first < per_group_; first += block)
            convolve(first, least(block, per_group_ - first), weights.get(), work);
    }

  private:
    struct Workspace {  // of each thread
        Workspace(const Call& call, std::int64_t rows, std::int64_t sums_row)
            : rows(rows),
              columns_row(row_length<Real>(kColumns)),
              sums_row(sums_row),
              ints(call.num_threads, 3 * rows),
              reals(call.num_threads, Samples<Real>::num_reals(rows) + Locator<Real>::num_reals(rows)),
              columns(call.num_threads, rows * columns_row),
              sums(call.num_threads, rows * sums_row) {}
        std::int64_t rows;
        ptrdiff_t columns_row, sums_row;
        PerThread<std::int32_t> ints;
        PerThread<Real> reals, columns, sums;
    };

    // Output channels `first` to `first + count` of each group.
    void convolve(std::int64_t first, std::int64_t count, Real* weights, const Workspace& work) {
        const std::int64_t row = row_length<Real>(count), channels = call_.channels / call_.groups;
        in_parallel(call_.num_threads, call_.groups * depth_, [&](std::int64_t item, int) {
            const std::int64_t group = item / depth_, tap = item % depth_ / channels, channel = item % channels;
            const ptrdiff_t at = (group * per_group_ + first) * call_.weight.stride[0] + channel * call_.weight.stride[1] +
                                 tap / call_.kernel[1] * call_.weight.stride[2] + tap % call_.kernel[1] * call_.weight.stride[3];
            read(weights + item * row, call_.weight, at, call_.weight.stride[0], count);
            std::memset(weights + item * row + count, 0, sizeof(Real) * (row - count));
        });
        const std::int64_t per_image = tiles_.per_image(), num_tiles = call_.batch * per_image;
        in_parallel(call_.num_threads, call_.groups * num_tiles, [&](std::int64_t item, int thread) {
            const std::int64_t group = item / num_tiles;
            const Tile tile = tiles_(item % num_tiles / per_image, item % per_image);
            Real *columns = work.columns.of(thread), *sums = work.sums.of(thread);
            std::int64_t done = 0;
            gather_columns(tile, group, work, thread, [&](std::int64_t filled) {
                product<Real>(tile.count, count, filled, {columns, work.columns_row, 1},
                              weights + (group * depth_ + done) * row, row, sums, work.sums_row, done > 0);
                done += filled;
            });
            finish(tile, group * per_group_ + first, count, sums, work.sums_row);
        });
    }

    // Sample all taps and channels of a group, and call `use(number of columns)` each time the columns are full.
    template <class Use>
    void gather_columns(const Tile& tile, std::int64_t group, const Workspace& work, int thread, Use use) {
        Real* reals = work.reals.of(thread);
        Samples<Real> samples(work.ints.of(thread), reals, work.rows);
        Locator<Real> locator(call_, work.ints.of(thread) + work.rows, reals + Samples<Real>::num_reals(work.rows), work.rows);
        locator.start(tile);
        std::int64_t filled = 0;
        for (std::int64_t tap = 0; tap < call_.taps(); ++tap) {
            std::int64_t located_group = -1, located_pixel = -1;
            for (std::int64_t i = 0; i < num_runs_; ++i) {
                const Run& run = runs_.get()[i];
                if (run.group != group) continue;
                const Table<Real> table(call_, run);
                if (located_group != run.offset_group || located_pixel != table.pixel)
                    locator.locate(located_group = run.offset_group, tap, table, samples), located_pixel = table.pixel;
                if (filled + run.count > kColumns) use(filled), filled = 0;
                const Real* data = tables_.get() + starts_.get()[i] + tile.image * table.size;
                gather(samples, tile.count, table, data, work.columns.of(thread) + filled, work.columns_row);
                filled += run.count;
            }
        }
        use(filled);
    }

    void finish(const Tile& tile, std::int64_t first, std::int64_t count, Real* sums, std::int64_t sums_row) {
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
    std::int64_t num_runs_;
    Buffer<Run> runs_;
    Buffer<std::int64_t> starts_;
    Buffer<Real> tables_;
    Tiles tiles_;
    std::int64_t depth_, per_group_;
};

}  // namespace
