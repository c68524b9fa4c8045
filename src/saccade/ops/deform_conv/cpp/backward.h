// The gradients, in two passes. The first takes each image and run of channels separately. The output's gradient times
// the weights is the gradient of every sample, which is added to the pixels, and multiplied by them for the gradients
// of offsets and mask. The second pass gathers the columns again, for the gradient of the weights; each of its items
// owns some of the weights. Threads thus share nothing, and sums do not depend on their number.
#pragma once

#include "forward.h"

namespace {

// The first pass has one item for each image and run; it cuts runs until there are kItems, but not below kShortestRun
// channels.
constexpr std::int64_t kItems = 8, kShortestRun = 16;
// The second pass cuts the images into at most kParts parts, whose sums are added afterwards.
constexpr std::int64_t kParts = 4;

INLINE std::int64_t longest_run(const Call& call) {
    const std::int64_t cuts = (kItems + call.batch - 1) / call.batch;
    const std::int64_t whole = call.channels / most(call.groups, call.offset_groups);
    return most(kShortestRun, least(kColumns, round_up((whole + cuts - 1) / cuts, kShortestRun)));
}

// The number of taps whose columns of a run are multiplied at once.
INLINE std::int64_t taps_at_once(const Call& call, const Run& run) {
    return most(1, least(call.taps(), kColumns / run.count));
}

// The output's gradient, in operands for both passes.
template <class Real, class Operand>
class OutputGradient {
  public:
    OutputGradient(const Call& call, const Tiles& tiles)
        : per_group_(call.channels_out / call.groups),
          depth_((per_group_ + kSteps<Operand> - 1) / kSteps<Operand>),
          lines_((call.positions() + kSteps<Operand> - 1) / kSteps<Operand>),
          positions_(call.positions()),
          row(row_length<Real>(call.groups * depth_)),
          line(kSteps<Operand> == 1 ? row : row_length<Real>(call.channels_out)),
          by_position_((call.batch * positions_ + kRowBlock) * row),
          by_channel_(kSteps<Operand> == 1 ? 0 : call.batch * lines_ * line) {
        // Rows after the last one are multiplied too, without effect.
        std::memset(static_cast<void*>(by_position_.get() + call.batch * positions_ * row), 0,
                    sizeof(Operand) * kRowBlock * row);
        const ptrdiff_t length = row_length<Real>(call.channels_out);
        const PerThread<Real> pixels(call.num_threads, (tiles.room() + 1) * length);
        in_parallel(call.num_threads, call.batch * tiles.per_image(), [&](std::int64_t item, int thread) {
            const Tile tile = tiles(item);
            Real* to = pixels.of(thread);
            if constexpr (kSteps<Operand> == 1) to = by_position_.get() + (tile.image * positions_ + tile.first) * row;
            const ptrdiff_t step = kSteps<Operand> == 1 ? row : length;
            for_lines(call, tile, call.grad, 0, [&](std::int64_t i, ptrdiff_t at, std::int64_t n) {
                read_pixels(to + i * step, step, call.grad, at, call.grad.stride[1], call.grad.stride[3],
                            call.channels_out, n);
            });
            if constexpr (kSteps<Operand> == 2) make_pairs(call, tile, to, length);
        });
    }

    // The rows of a tile and group: one per position, whose `depth()` elements are the channels of the group.
    const Operand* by_position(const Tile& tile, std::int64_t group) const {
        return by_position_.get() + (tile.image * positions_ + tile.first) * row + group * depth_;
    }
    std::int64_t depth() const { return depth_; }

    // The rows of a tile and group: one for as many positions as an element holds, with one element per channel.
    const Operand* by_channel(const Tile& tile, std::int64_t group) const {
        if constexpr (kSteps<Operand> == 1) return by_position(tile, group);
        return by_channel_.get() + (tile.image * lines_ + tile.first / kSteps<Operand>)*line + group * per_group_;
    }

  private:
    void make_pairs(const Call& call, const Tile& tile, Real* pixels, ptrdiff_t length) const {
        constexpr int width = Simd<Real>::width;
        std::memset(pixels + tile.count * length, 0, sizeof(Real) * length);  // where the last pair has no second
        for (std::int64_t i = 0; i < tile.count; ++i) {
            Operand* to = by_position_.get() + (tile.image * positions_ + tile.first + i) * row;
            for (std::int64_t n = call.channels_out; n < length; ++n) pixels[i * length + n] = 0;
            for (std::int64_t group = 0; group < call.groups; ++group) {
                const Real* from = pixels + i * length + group * per_group_;
                for (std::int64_t n = 0; n < per_group_; n += 2) {
                    Pair pairs[width];
                    const Vector<Real> second = n + 1 < per_group_ ? broadcast(from[n + 1]) : Vector<Real>{};
                    put_both(pairs, broadcast(from[n]), second);
                    to[group * depth_ + n / 2] = pairs[0];
                }
            }
        }
        for (std::int64_t i = 0; i < tile.count; i += 2) {
            Operand* to = by_channel_.get() + (tile.image * lines_ + (tile.first + i) / 2) * line;
            for (std::int64_t n = 0; n < call.channels_out; n += width)
                put_both(to + n, load(pixels + i * length + n), load(pixels + (i + 1) * length + n));
        }
    }

    const std::int64_t per_group_, depth_, lines_, positions_;

  public:
    const ptrdiff_t row, line;  // from one row to the next

  private:
    const Buffer<Operand> by_position_, by_channel_;
};

// ---- first pass: input, offset, mask

template <class Real, class Operand>
class SamplesPass {
  public:
    SamplesPass(const Call& call, const Tables<Real>& tables, const Tiles& tiles,
                const OutputGradient<Real, Operand>& grad)
        : call_(call),
          tables_(tables),
          tiles_(tiles),
          grad_(grad),
          finders_(call, tiles.room()),
          columns_row_(row_length<Real>(kColumns)),
          columns_(call.num_threads, tiles.room() * columns_row_),
          found_(call.num_threads, 7 * tiles.room()),
          shared_(tables.num_runs > call.offset_groups),
          parts_(shared_ ? tables.num_runs * call.batch * part_size() : 0) {}

    void run() const {
        std::int64_t weights_size = 0, table_size = 0;
        for (std::int64_t i = 0; i < tables_.num_runs; ++i) {
            weights_size = most(weights_size, grad_.depth() * weights_row(tables_.run(i)));
            table_size = most(table_size, Table<Real>(call_, tables_.run(i)).size);
        }
        const Buffer<Operand> weights(tables_.num_runs * weights_size);
        in_parallel(call_.num_threads, tables_.num_runs * grad_.depth(), [&](std::int64_t item, int) {
            const std::int64_t index = item / grad_.depth(), step = item % grad_.depth();
            arrange_weights(tables_.run(index), step, weights.get() + index * weights_size);
        });
        const PerThread<Real> grad_tables(call_.num_threads, call_.grad_input.data ? table_size : 0);
        in_parallel(call_.num_threads, tables_.num_runs * call_.batch, [&](std::int64_t item, int thread) {
            const std::int64_t index = item / call_.batch;
            differentiate(index, item % call_.batch, weights.get() + index * weights_size, grad_tables.of(thread),
                          thread);
        });
        if (shared_ && wants_positions()) add_parts();
    }

  private:
    bool wants_positions() const { return call_.grad_offset.data || call_.grad_mask.data; }
    std::int64_t weights_row(const Run& run) const { return row_length<Real>(call_.taps() * run.count); }
    std::int64_t part_size() const { return call_.taps() * 3 * call_.positions(); }
    // If several runs share an offset group, each writes its share of the gradients here, to be added afterwards.
    Real* part(std::int64_t index, std::int64_t image) const {
        return parts_.get() + (index * call_.batch + image) * part_size();
    }

    void arrange_weights(const Run& run, std::int64_t step, Operand* weights) const {
        const std::int64_t n = step * kSteps<Operand>, per_group = call_.channels_out / call_.groups,
                           row = weights_row(run);
        Operand* to = weights + step * row;
        for (std::int64_t tap = 0; tap < call_.taps(); ++tap) {
            const ptrdiff_t at = weight_at(call_, call_.weight, tap, run.group * per_group + n, run.in_group);
            read_operands(to + tap * run.count, call_.weight, at, at + call_.weight.stride[0], n + 1 < per_group,
                          call_.weight.stride[1], run.count);
        }
        const std::int64_t filled = call_.taps() * run.count;
        std::memset(static_cast<void*>(to + filled), 0, sizeof(Operand) * (row - filled));
    }

    void differentiate(std::int64_t index, std::int64_t image, const Operand* weights, Real* grad_table,
                       int thread) const {
        const Run& run = tables_.run(index);
        const Table<Real> table(call_, run);
        const Real* data = tables_.data(index, image, table);
        Real *columns = columns_.of(thread), *products = found_.of(thread);
        Samples<Real> samples = finders_.samples(thread);
        Locator<Real> locator = finders_.locator(thread);
        if (call_.grad_input.data) std::memset(grad_table, 0, sizeof(Real) * table.size);
        auto* scatter_ = scatter<Real, true, true>;
        if (!wants_positions()) scatter_ = scatter<Real, true, false>;
        if (!call_.grad_input.data) scatter_ = scatter<Real, false, true>;
        const std::int64_t at_once = taps_at_once(call_, run);
        for (std::int64_t t = 0; t < tiles_.per_image(); ++t) {
            const Tile tile = tiles_(image * tiles_.per_image() + t);
            locator.start(tile);
            for (std::int64_t first = 0; first < call_.taps(); first += at_once) {
                const std::int64_t end = least(first + at_once, call_.taps());
                product<Real, Operand>(tile.count, (end - first) * run.count, grad_.depth(),
                                       {grad_.by_position(tile, run.group), grad_.row, 1}, weights + first * run.count,
                                       weights_row(run), columns, columns_row_, false);
                for (std::int64_t tap = first; tap < end; ++tap) {
                    locator.locate(run.offset_group, tap, table, samples);
                    const Real* grads = columns + (tap - first) * run.count;
                    scatter_(samples, tile.count, table, run.count, data, grads, columns_row_, grad_table, products);
                    if (wants_positions()) differentiate_positions(tile, index, tap, samples, products);
                }
            }
        }
        if (call_.grad_input.data) write_image(image, run, table, grad_table);
    }

    // The gradients of offsets and mask, computed from the inner products with the four pixels.
    void differentiate_positions(const Tile& tile, std::int64_t index, std::int64_t tap, const Samples<Real>& samples,
                                 Real* products) const {
        const std::int64_t room = tiles_.room();
        Real *dy = products + 4 * room, *dx = dy + room, *dm = dx + room;
        for (std::int64_t i = 0; i < tile.count; ++i) {
            const Real* p = products + 4 * i;
            const Real above = p[1] - p[0], below = p[3] - p[2];
            const Real upper = p[0] + samples.right[i] * above, lower = p[2] + samples.right[i] * below;
            dy[i] = samples.mask[i] * (lower - upper);
            dx[i] = samples.mask[i] * (above + samples.down[i] * (below - above));
            dm[i] = upper + samples.down[i] * (lower - upper);
        }
        if (!shared_) return write_positions(tile, tables_.run(index).offset_group * call_.taps() + tap, dy, room);
        Real* to = part(index, tile.image) + 3 * tap * call_.positions() + tile.first;
        for (int k = 0; k < 3; ++k) std::memcpy(to + k * call_.positions(), dy + k * room, sizeof(Real) * tile.count);
    }

    // `found` holds the gradients of dy, dx and the mask, `row` apart.
    void write_positions(const Tile& tile, std::int64_t channel, const Real* found, std::int64_t row) const {
        const auto write_one = [&](const Tensor& tensor, std::int64_t channel, const Real* from) {
            for_lines(call_, tile, tensor, channel, [&](std::int64_t i, ptrdiff_t at, std::int64_t n) {
                write(tensor, at, tensor.stride[3], from + i, n);
            });
        };
        if (call_.grad_offset.data) {
            write_one(call_.grad_offset, 2 * channel, found);
            write_one(call_.grad_offset, 2 * channel + 1, found + row);
        }
        if (call_.grad_mask.data) write_one(call_.grad_mask, channel, found + 2 * row);
    }

    void add_parts() const {
        const std::int64_t taps = call_.taps(), positions = call_.positions();
        in_parallel(call_.num_threads, call_.batch * call_.offset_groups * taps, [&](std::int64_t item, int) {
            const std::int64_t image = item / (call_.offset_groups * taps),
                               channel = item % (call_.offset_groups * taps);
            Real* sum = nullptr;
            for (std::int64_t i = 0; i < tables_.num_runs; ++i) {
                if (tables_.run(i).offset_group != channel / taps) continue;
                Real* found = part(i, image) + 3 * (channel % taps) * positions;
                for (std::int64_t k = 0; sum && k < 3 * positions; ++k) sum[k] += found[k];
                if (!sum) sum = found;
            }
            write_positions({image, 0, positions}, channel, sum, positions);
        });
    }

    void write_image(std::int64_t image, const Run& run, const Table<Real>& table, const Real* grad_table) const {
        const Tensor& to = call_.grad_input;
        for (std::int64_t y = 0; y < table.height; ++y) {
            const Real* from = grad_table + (y + 1) * table.line + table.pixel;
            const ptrdiff_t at = image * to.stride[0] + run.first * to.stride[1] + y * to.stride[2];
            write_pixels(from, table.pixel, to, at, to.stride[1], to.stride[3], run.count, table.width);
        }
    }

    const Call& call_;
    const Tables<Real>& tables_;
    const Tiles& tiles_;
    const OutputGradient<Real, Operand>& grad_;
    const Finders<Real> finders_;
    const ptrdiff_t columns_row_;
    const PerThread<Real> columns_, found_;
    const bool shared_;
    const Buffer<Real> parts_;
};

// ---- second pass: weight

template <class Real, class Operand>
class WeightsPass {
  public:
    WeightsPass(const Call& call, const Tables<Real>& tables, const Tiles& tiles,
                const OutputGradient<Real, Operand>& grad)
        : call_(call),
          tables_(tables),
          tiles_(tiles),
          grad_(grad),
          finders_(call, tiles.room()),
          columns_row_(row_length<Real>(kColumns)),
          columns_(call.num_threads, tiles.room() * columns_row_),
          per_group_(call.channels_out / call.groups),
          sums_row_(row_length<Real>(per_group_)),
          blocks_(tables.num_runs * call.taps()) {}

    void run() const {
        std::int64_t num_blocks = 0;
        for (std::int64_t i = 0; i < tables_.num_runs; ++i) {
            const std::int64_t at_once = taps_at_once(call_, tables_.run(i));
            for (std::int64_t first = 0; first < call_.taps(); first += at_once)
                blocks_.get()[num_blocks++] = {i, first, least(first + at_once, call_.taps())};
        }
        const std::int64_t num_parts = least(call_.batch, kParts), size = round_up(kColumns, kRowBlock) * sums_row_;
        const Buffer<Real> sums(num_blocks * num_parts * size);
        in_parallel(call_.num_threads, num_blocks * num_parts, [&](std::int64_t item, int thread) {
            const std::int64_t part = item % num_parts;
            sum(blocks_.get()[item / num_parts], call_.batch * part / num_parts, call_.batch * (part + 1) / num_parts,
                sums.get() + item * size, thread);
        });
        in_parallel(call_.num_threads, num_blocks, [&](std::int64_t item, int) {
            write_block(blocks_.get()[item], sums.get() + item * num_parts * size, num_parts, size);
        });
    }

  private:
    struct Block {  // some taps of a run
        std::int64_t run, first, end;
    };

    // Over some images: the columns, transposed, times the output's gradient.
    void sum(const Block& block, std::int64_t first_image, std::int64_t end_image, Real* sums, int thread) const {
        const Run& run = tables_.run(block.run);
        const Table<Real> table(call_, run);
        Operand* columns = columns_.of(thread);
        Samples<Real> samples = finders_.samples(thread);
        Locator<Real> locator = finders_.locator(thread);
        for (std::int64_t t = first_image * tiles_.per_image(); t < end_image * tiles_.per_image(); ++t) {
            const Tile tile = tiles_(t);
            const Real* data = tables_.data(block.run, tile.image, table);
            locator.start(tile);
            for (std::int64_t tap = block.first; tap < block.end; ++tap) {
                locator.locate(run.offset_group, tap, table, samples);
                gather_for_sums(samples, tile.count, table, data, columns + (tap - block.first) * run.count,
                                columns_row_);
            }
            product<Real, Operand>((block.end - block.first) * run.count, per_group_,
                                   (tile.count + kSteps<Operand> - 1) / kSteps<Operand>, {columns, 1, columns_row_},
                                   grad_.by_channel(tile, run.group), grad_.line, sums, sums_row_,
                                   t > first_image * tiles_.per_image());
        }
    }

    void write_block(const Block& block, Real* sums, std::int64_t num_parts, std::int64_t size) const {
        const Run& run = tables_.run(block.run);
        const Tensor& to = call_.grad_weight;
        for (std::int64_t part = 1; part < num_parts; ++part)
            for (std::int64_t k = 0; k < (block.end - block.first) * run.count * sums_row_; ++k)
                sums[k] += sums[part * size + k];
        for (std::int64_t tap = block.first; tap < block.end; ++tap)
            write_pixels(sums + (tap - block.first) * run.count * sums_row_, sums_row_, to,
                         weight_at(call_, to, tap, run.group * per_group_, run.in_group), to.stride[0], to.stride[1],
                         per_group_, run.count);
    }

    const Call& call_;
    const Tables<Real>& tables_;
    const Tiles& tiles_;
    const OutputGradient<Real, Operand>& grad_;
    const Finders<Real> finders_;
    const ptrdiff_t columns_row_;
    const PerThread<Operand> columns_;
    const std::int64_t per_group_;
    const ptrdiff_t sums_row_;
    const Buffer<Block> blocks_;
};

// ---- bias

template <class Real>
void sum_bias(const Call& call, const Tiles& tiles) {
    constexpr std::int64_t at_once = 16;
    in_parallel(call.num_threads, (call.channels_out + at_once - 1) / at_once, [&](std::int64_t item, int) {
        const std::int64_t first = item * at_once, channels = least(at_once, call.channels_out - first);
        Real total[at_once] = {}, pixels[kTile * at_once];
        for (std::int64_t t = 0; t < call.batch * tiles.per_image(); ++t) {
            const Tile tile = tiles(t);
            for_lines(call, tile, call.grad, first, [&](std::int64_t i, ptrdiff_t at, std::int64_t n) {
                read_pixels(pixels + i * at_once, at_once, call.grad, at, call.grad.stride[1], call.grad.stride[3],
                            channels, n);
            });
            // A tile's sum first, so that many small numbers are not added to a large one.
            Real sum[at_once] = {};
            for (std::int64_t i = 0; i < tile.count; ++i)
                for (std::int64_t n = 0; n < channels; ++n) sum[n] += pixels[i * at_once + n];
            for (std::int64_t n = 0; n < channels; ++n) total[n] += sum[n];
        }
        write(call.grad_bias, first * call.grad_bias.stride[0], call.grad_bias.stride[0], total, channels);
    });
}

template <class Real, class Operand>
void backward(const Call& call) {
    const Tiles tiles(call);
    if (call.grad_bias.data) sum_bias<Real>(call, tiles);
    const bool samples = call.grad_input.data || call.grad_offset.data || call.grad_mask.data;
    if (!samples && !call.grad_weight.data) return;
    const Tables<Real> tables(call, longest_run(call));
    const OutputGradient<Real, Operand> grad(call, tiles);
    if (samples) SamplesPass<Real, Operand>(call, tables, tiles, grad).run();
    if (call.grad_weight.data) WeightsPass<Real, Operand>(call, tables, tiles, grad).run();
}

}  // namespace
