// The gradients, in two passes. The first takes each image and run of channels by itself: the output's gradient times
// the weights is the gradient of every sample, which is added to the pixels, and multiplied with them for the gradients
// of offsets and mask. The second gathers the columns again, for the gradient of the weights: each of its items owns
// some of the weights. So nothing is shared between threads, and sums do not depend on their number.
#pragma once

#include "forward.h"

namespace {

// The first pass makes at least so many items of an image and a run, by cutting runs.
constexpr std::int64_t kItems = 8;
// The second pass cuts the images into at most so many parts, whose sums are added afterwards.
constexpr std::int64_t kParts = 4;

template <class Real>
class Backward {
  public:
    explicit Backward(const Call& call)
        : call_(call),
          longest_(longest_run(call)),
          num_runs_(list_runs(call, longest_, nullptr)),
          runs_(num_runs_),
          starts_(num_runs_),
          tables_((list_runs(call, longest_, runs_.get()),
                   table_starts<Real>(call, runs_.get(), num_runs_, starts_.get()))),
          tiles_(call),
          channels_(call.channels / call.groups),
          per_group_(call.channels_out / call.groups),
          grads_row_(row_length<Real>(call.channels_out)),
          grads_(call.batch * call.positions() * grads_row_ + kRowBlock * grads_row_) {}

    void run() {
        fill_tables(call_, runs_.get(), num_runs_, starts_.get(), tables_.get());
        read_grads();
        if (call_.grad_input.data || call_.grad_offset.data || call_.grad_mask.data) samples_pass();
        if (call_.grad_weight.data) weights_pass();
        if (call_.grad_bias.data) sum_bias();
    }

  private:
    static std::int64_t longest_run(const Call& call) {
        const std::int64_t shortest = 16, cuts = (kItems + call.batch - 1) / call.batch;
        const std::int64_t whole = call.channels / (call.groups > call.offset_groups ? call.groups : call.offset_groups);
        return most(shortest, least(kColumns, round_up((whole + cuts - 1) / cuts, shortest)));
    }

    // The output's gradient as rows of channels, one for each position of each image.
    void read_grads() {
        std::memset(grads_.get() + call_.batch * call_.positions() * grads_row_, 0, sizeof(Real) * kRowBlock * grads_row_);
        const std::int64_t height = call_.out_size[0], width = call_.out_size[1];
        in_parallel(call_.num_threads, call_.batch * height, [&](std::int64_t item, int) {
            const std::int64_t image = item / height, y = item % height;
            Real* row = grads_.get() + item * width * grads_row_;
            const Tensor& grad = call_.grad;
            const ptrdiff_t at = image * grad.stride[0] + y * grad.stride[2];
            read_pixels(row, grads_row_, grad, at, grad.stride[1], grad.stride[3], call_.channels_out, width);
            for (std::int64_t x = 0; x < width; ++x)
                std::memset(row + x * grads_row_ + call_.channels_out, 0, sizeof(Real) * (grads_row_ - call_.channels_out));
        });
    }

    const Real* grads_of(const Tile& tile, std::int64_t group) const {
        return grads_.get() + (tile.image * call_.positions() + tile.first) * grads_row_ + group * per_group_;
    }

    std::int64_t taps_at_once(const Run& run) const { return most(1, least(call_.taps(), kColumns / run.count)); }

    // ---- first pass: input, offset, mask

    struct SampleWork {  // of each thread
        SampleWork(const Backward& b)
            : rows(b.tiles_.room()),
              columns_row(row_length<Real>(most(b.longest_, kColumns))),
              ints(b.call_.num_threads, 3 * rows),
              reals(b.call_.num_threads, Samples<Real>::num_reals(rows) + Locator<Real>::num_reals(rows) + 7 * rows),
              columns(b.call_.num_threads, rows * columns_row) {}
        std::int64_t rows;
        ptrdiff_t columns_row;
        PerThread<std::int32_t> ints;
        PerThread<Real> reals, columns;
    };

    void samples_pass() {
        std::int64_t weight_size = 0, table_size = 0;
        for (std::int64_t i = 0; i < num_runs_; ++i) {
            weight_size = most(weight_size, per_group_ * row_length<Real>(call_.taps() * runs_.get()[i].count));
            table_size = most(table_size, Table<Real>(call_, runs_.get()[i]).size);
        }
        const Buffer<Real> weights(num_runs_ * weight_size);
        in_parallel(call_.num_threads, num_runs_ * per_group_, [&](std::int64_t item, int) {
            const Run& run = runs_.get()[item / per_group_];
            const std::int64_t n = item % per_group_, row = row_length<Real>(call_.taps() * run.count);
            Real* to = weights.get() + item / per_group_ * weight_size + n * row;
            for (std::int64_t tap = 0; tap < call_.taps(); ++tap)
                read(to + tap * run.count, call_.weight, weight_at(run, tap, run.group * per_group_ + n), call_.weight.stride[1], run.count);
            std::memset(to + call_.taps() * run.count, 0, sizeof(Real) * (row - call_.taps() * run.count));
        });
        const SampleWork work(*this);
        const PerThread<Real> tables(call_.num_threads, table_size);
        // Where several runs share an offset group, each keeps what it finds, and it is added afterwards.
        const bool shared = num_runs_ > call_.offset_groups;
        const std::int64_t parts_size = call_.batch * call_.taps() * 3 * call_.positions();
        const Buffer<Real> parts(shared ? num_runs_ * parts_size : 0);
        in_parallel(call_.num_threads, num_runs_ * call_.batch, [&](std::int64_t item, int thread) {
            const std::int64_t i = item / call_.batch, image = item % call_.batch;
            samples_of(image, i, weights.get() + i * weight_size, tables.of(thread),
                       shared ? parts.get() + i * parts_size + image * (parts_size / call_.batch) : nullptr, work, thread);
        });
        if (shared) add_parts(parts.get(), parts_size);
    }

    void samples_of(std::int64_t image, std::int64_t index, const Real* weights, Real* grad_table, Real* parts,
                    const SampleWork& work, int thread) {
        const Run& run = runs_.get()[index];
        const Table<Real> table(call_, run);
        const Real* data = tables_.get() + starts_.get()[index] + image * table.size;
        Real *reals = work.reals.of(thread), *columns = work.columns.of(thread);
        Samples<Real> samples(work.ints.of(thread), reals, work.rows);
        reals += Samples<Real>::num_reals(work.rows);
        Locator<Real> locator(call_, work.ints.of(thread) + work.rows, reals, work.rows);
        Real* products = reals + Locator<Real>::num_reals(work.rows);
        const bool to_image = call_.grad_input.data, to_positions = call_.grad_offset.data || call_.grad_mask.data;
        if (to_image) std::memset(grad_table, 0, sizeof(Real) * table.size);
        const std::int64_t at_once = taps_at_once(run), weights_row = row_length<Real>(call_.taps() * run.count);
        for (std::int64_t t = 0; t < tiles_.per_image(); ++t) {
            const Tile tile = tiles_(image, t);
            locator.start(tile);
            for (std::int64_t first = 0; first < call_.taps(); first += at_once) {
                const std::int64_t end = least(first + at_once, call_.taps());
                product<Real>(tile.count, (end - first) * run.count, per_group_, {grads_of(tile, run.group), grads_row_, 1},
                              weights + first * run.count, weights_row, columns, work.columns_row, false);
                for (std::int64_t tap = first; tap < end; ++tap) {
                    locator.locate(run.offset_group, tap, table, samples);
                    const Real* grads = columns + (tap - first) * run.count;
                    auto scatter_ = to_image ? (to_positions ? scatter<Real, true, true> : scatter<Real, true, false>)
                                             : scatter<Real, false, true>;
                    scatter_(samples, tile.count, table, run.count, data, grads, work.columns_row, grad_table, products);
                    if (to_positions) positions_of(tile, run, tap, samples, products, products + 4 * work.rows, parts, work.rows);
                }
            }
        }
        if (to_image) write_image(image, run, table, grad_table);
    }

    // The gradients of offsets and mask, of the inner products with the four pixels.
    void positions_of(const Tile& tile, const Run& run, std::int64_t tap, const Samples<Real>& samples, const Real* products,
                      Real* found, Real* parts, std::int64_t room) {
        Real *__restrict dy = found, *__restrict dx = found + room, *__restrict dm = found + 2 * room;
        for (std::int64_t i = 0; i < tile.count; ++i) {
            const Real* p = products + 4 * i;
            const Real down = samples.down[i], right = samples.right[i];
            const Real upper = p[0] + right * (p[1] - p[0]), lower = p[2] + right * (p[3] - p[2]);
            dy[i] = samples.mask[i] * (lower - upper);
            dx[i] = samples.mask[i] * ((p[1] - p[0]) + down * ((p[3] - p[2]) - (p[1] - p[0])));
            dm[i] = upper + down * (lower - upper);
        }
        if (parts) {
            for (int k = 0; k < 3; ++k)
                std::memcpy(parts + (3 * tap + k) * call_.positions() + tile.first, found + k * room, sizeof(Real) * tile.count);
        } else {
            write_position_grads(tile, run.offset_group * call_.taps() + tap, dy, dx, dm);
        }
    }

    void write_position_grads(const Tile& tile, std::int64_t channel, const Real* dy, const Real* dx, const Real* dm) {
        if (call_.grad_offset.data) {
            write_positions(tile, call_.grad_offset, 2 * channel, dy);
            write_positions(tile, call_.grad_offset, 2 * channel + 1, dx);
        }
        if (call_.grad_mask.data) write_positions(tile, call_.grad_mask, channel, dm);
    }

    void write_positions(const Tile& tile, const Tensor& tensor, std::int64_t channel, const Real* from) {
        for_lines(call_, tile, tensor, channel, [&](std::int64_t i, ptrdiff_t at, std::int64_t n) {
            write(tensor, at, tensor.stride[3], from + i, n);
        });
    }

    void add_parts(Real* parts, std::int64_t parts_size) {
        const std::int64_t taps = call_.taps(), size = 3 * call_.positions();
        in_parallel(call_.num_threads, call_.batch * call_.offset_groups * taps, [&](std::int64_t item, int) {
            const std::int64_t image = item / (call_.offset_groups * taps), channel = item % (call_.offset_groups * taps);
            Real* sum = nullptr;
            for (std::int64_t i = 0; i < num_runs_; ++i) {
                if (runs_.get()[i].offset_group != channel / taps) continue;
                Real* part = parts + i * parts_size + (image * taps + channel % taps) * size;
                for (std::int64_t k = 0; sum && k < size; ++k) sum[k] += part[k];
                if (!sum) sum = part;
            }
            const Tile whole{image, 0, call_.positions()};
            write_position_grads(whole, channel, sum, sum + call_.positions(), sum + 2 * call_.positions());
        });
    }

    void write_image(std::int64_t image, const Run& run, const Table<Real>& table, const Real* grad_table) {
        const Tensor& to = call_.grad_input;
        for (std::int64_t y = 0; y < table.height; ++y) {
            const Real* from = grad_table + (y + 1) * table.line + table.pixel;
            const ptrdiff_t at = image * to.stride[0] + run.first * to.stride[1] + y * to.stride[2];
            write_pixels(from, table.pixel, to, at, to.stride[1], to.stride[3], run.count, table.width);
        }
    }

    // ---- second pass: weight, bias

    ptrdiff_t weight_at(const Run& run, std::int64_t tap, std::int64_t channel_out) const { return at(call_.weight, run, tap, channel_out); }

    ptrdiff_t at(const Tensor& weight, const Run& run, std::int64_t tap, std::int64_t channel_out) const {
        return channel_out * weight.stride[0] + run.first % channels_ * weight.stride[1] +
               tap / call_.kernel[1] * weight.stride[2] + tap % call_.kernel[1] * weight.stride[3];
    }

    void weights_pass() {
        const std::int64_t num_parts = least(call_.batch, kParts), sums_row = row_length<Real>(per_group_);
        const std::int64_t room = round_up(kColumns > longest_ ? kColumns : longest_, kRowBlock);
        std::int64_t num_items = 0;
        const Buffer<std::int64_t> first_items(num_runs_ + 1);
        for (std::int64_t i = 0; i < num_runs_; ++i) {
            first_items.get()[i] = num_items;
            const std::int64_t at_once = taps_at_once(runs_.get()[i]);
            num_items += (call_.taps() + at_once - 1) / at_once;
        }
        const Buffer<Real> sums(num_parts * num_items * room * sums_row);
        const SampleWork work(*this);
        in_parallel(call_.num_threads, num_items * num_parts, [&](std::int64_t item, int thread) {
            std::int64_t i = num_runs_ - 1;
            while (first_items.get()[i] > item / num_parts) --i;
            const std::int64_t part = item % num_parts, images = call_.batch;
            sum_weights(i, item / num_parts - first_items.get()[i], images * part / num_parts, images * (part + 1) / num_parts,
                        sums.get() + item * room * sums_row, sums_row, work, thread);
        });
        in_parallel(call_.num_threads, num_items, [&](std::int64_t item, int) {
            std::int64_t i = num_runs_ - 1;
            while (first_items.get()[i] > item) --i;
            const Run& run = runs_.get()[i];
            const std::int64_t at_once = taps_at_once(run), first = (item - first_items.get()[i]) * at_once;
            const std::int64_t taps = least(at_once, call_.taps() - first);
            Real* sum = sums.get() + item * num_parts * room * sums_row;
            for (std::int64_t part = 1; part < num_parts; ++part)
                for (std::int64_t k = 0; k < taps * run.count * sums_row; ++k) sum[k] += sum[part * room * sums_row + k];
            for (std::int64_t tap = 0; tap < taps; ++tap)
                write_pixels(sum + tap * run.count * sums_row, sums_row, call_.grad_weight,
                             at(call_.grad_weight, run, first + tap, run.group * per_group_), call_.grad_weight.stride[0],
                             call_.grad_weight.stride[1], per_group_, run.count);
        });
    }

    // The gradient of the weights of some taps and a run's channels, over some images.
    void sum_weights(std::int64_t index, std::int64_t block, std::int64_t first_image, std::int64_t end_image, Real* sums,
                     std::int64_t sums_row, const SampleWork& work, int thread) {
        const Run& run = runs_.get()[index];
        const Table<Real> table(call_, run);
        Real *reals = work.reals.of(thread), *columns = work.columns.of(thread);
        Samples<Real> samples(work.ints.of(thread), reals, work.rows);
        Locator<Real> locator(call_, work.ints.of(thread) + work.rows, reals + Samples<Real>::num_reals(work.rows), work.rows);
        const std::int64_t at_once = taps_at_once(run), first = block * at_once, end = least(first + at_once, call_.taps());
        bool add = false;
        for (std::int64_t image = first_image; image < end_image; ++image) {
            const Real* data = tables_.get() + starts_.get()[index] + image * table.size;
            for (std::int64_t t = 0; t < tiles_.per_image(); ++t, add = true) {
                const Tile tile = tiles_(image, t);
                locator.start(tile);
                for (std::int64_t tap = first; tap < end; ++tap) {
                    locator.locate(run.offset_group, tap, table, samples);
                    gather(samples, tile.count, table, data, columns + (tap - first) * run.count, work.columns_row);
                }
                product<Real>((end - first) * run.count, per_group_, tile.count, {columns, 1, work.columns_row},
                              grads_of(tile, run.group), grads_row_, sums, sums_row, add);
            }
        }
    }

    void sum_bias() {
        in_parallel(call_.num_threads, (call_.channels_out + 15) / 16, [&](std::int64_t item, int) {
            const std::int64_t first = item * 16, count = least(16, call_.channels_out - first);
            // Sums of sums of a tile each, so that many small numbers are not added to a large one.
            Real total[16] = {}, part[16] = {};
            const std::int64_t rows = call_.batch * call_.positions();
            for (std::int64_t i = 0; i < rows; ++i) {
                for (std::int64_t n = 0; n < count; ++n) part[n] += grads_.get()[i * grads_row_ + first + n];
                if (i % 256 == 255 || i == rows - 1)
                    for (std::int64_t n = 0; n < count; ++n) total[n] += part[n], part[n] = 0;
            }
            write(call_.grad_bias, first * call_.grad_bias.stride[0], call_.grad_bias.stride[0], total, count);
        });
    }

    const Call& call_;
    std::int64_t longest_, num_runs_;
    Buffer<Run> runs_;
    Buffer<std::int64_t> starts_;
    Buffer<Real> tables_;
    Tiles tiles_;
    std::int64_t channels_, per_group_;
    ptrdiff_t grads_row_;
    Buffer<Real> grads_;
};

}  // namespace
