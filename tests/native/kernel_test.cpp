// The kernels on random calls, without Python or torch: against naive loops in double, with every stride, dtype, number
// of threads and set of wanted gradients, and with an eye on the memory around what they write. `run.py` builds it.
//
//     kernel_test [CASES [SEED [INSTRUCTIONS [FIRST_CASE]]]]
//
// INSTRUCTIONS: all (that this processor has), best (what the Python module would choose), or the name of one.
//
// SACCADE_SETS lists the compiled-in kernels as SET(name, ask, bf16), the best first; ask: whether to ask the
// processor; bf16: whether samples are rounded to bfloat16 where the weights are.
// With SACCADE_OWN_THREADS, parallel_for is this file's, on std::thread, which ThreadSanitizer understands.
#include <pthread.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

#ifdef SACCADE_OWN_THREADS
#include <thread>
#endif

#include "call.h"

#ifndef SACCADE_SETS
#define SACCADE_SETS SET(baseline, true, false)
#endif

namespace saccade {
#define SET(name, ask, bf16) extern const Kernels name;
SACCADE_SETS
#undef SET

#ifdef SACCADE_OWN_THREADS
// Each thread's items are fixed: a shared counter would order the threads' work, and hide races from the sanitizer.
void parallel_for(int num_threads, std::int64_t num_items, Body body, void* context) {
    if (num_threads > num_items) num_threads = static_cast<int>(num_items);
    const auto work = [=](int thread) {
        for (std::int64_t item = thread; item < num_items; item += num_threads) body(context, item, thread);
    };
    std::vector<std::thread> others;
    for (int thread = 1; thread < num_threads; ++thread) others.emplace_back(work, thread);
    if (num_items > 0) work(0);
    for (std::thread& other : others) other.join();
}
#endif
}  // namespace saccade

namespace {

#if defined(__aarch64__) && !defined(__clang__) && __GNUC__ < 13
using Half = __fp16;  // the only name that GCC 12 has for it there
#else
using Half = _Float16;
#endif

using saccade::Call;
using saccade::Dtype;
using saccade::Kernels;
using Size = std::int64_t;

struct Set {
    const Kernels* kernels;
    bool ask, bf16;
};
#define SET(name, ask, bf16) {&saccade::name, ask, bf16},
const Set kSets[] = {SACCADE_SETS};
#undef SET

struct Random {
    std::mt19937_64 engine;
    Size below(Size n) { return static_cast<Size>(engine() % static_cast<std::uint64_t>(n)); }
    Size between(Size low, Size high) { return low + below(high - low + 1); }
    bool chance(double p) { return real(0, 1) < p; }
    double real(double low, double high) {
        return low + (high - low) * (static_cast<double>(engine() >> 11) / 9007199254740992.0);
    }
    template <class T>
    T of(std::initializer_list<T> values) {
        return values.begin()[below(static_cast<Size>(values.size()))];
    }
};

// ---- tensors in memory

constexpr std::size_t kBytes[] = {4, 8, 2, 2};
const char* const kNames[] = {"float32", "float64", "bfloat16", "float16"};

// Elements at any strides, in a piece of memory of their own. All else there, and what is not written yet, has every
// bit set: that is a NaN in each dtype, so that a number read from the wrong place shows, and a write there as well.
class Array {
  public:
    Array() = default;
    Array(Random& random, Dtype dtype, std::vector<Size> shape, bool written)
        : dtype_(dtype), shape_(shape), stride_(shape.size()) {
        std::vector<std::size_t> order(shape.size());  // of the axes, the innermost first
        for (std::size_t i = 0; i < order.size(); ++i) order[i] = order.size() - 1 - i;
        const Size layout = random.below(6);  // 0-2: as torch makes them, 3: channels last, else any
        if (layout == 3 && shape.size() == 4) order = {1, 3, 2, 0};
        for (std::size_t i = order.size(); layout > 3 && i > 1; --i)
            std::swap(order[i - 1], order[random.below(static_cast<Size>(i))]);
        const bool gaps = random.chance(0.3), flips = random.chance(0.1), repeats = !written && random.chance(0.1);
        Size extent = gaps ? random.between(1, 3) : 1, before = 0, span = 0;
        for (const std::size_t axis : order) {
            stride_[axis] = extent;
            if (repeats && random.chance(0.5)) stride_[axis] = 0;
            if (stride_[axis]) extent = extent * shape[axis] + (gaps ? random.below(4) : 0);
            span += (shape[axis] - 1) * stride_[axis];
            if (flips && random.chance(0.5))
                before += (shape[axis] - 1) * stride_[axis], stride_[axis] = -stride_[axis];
            // No index but 0 meets this stride: it may be anything.
            if (shape[axis] == 1 && random.chance(0.5)) stride_[axis] = random.of<Size>({0, 1, 5, -3, Size{1} << 40});
        }
        // Sometimes nothing around, so that AddressSanitizer sees each step too far.
        const Size guards = random.of<Size>({0, 1, 7, 64});
        origin_ = guards + before;
        memory_.reset(static_cast<std::size_t>(span + 1 + 2 * guards) * bytes());
    }

    explicit operator bool() const { return !shape_.empty(); }
    Dtype dtype() const { return dtype_; }
    const std::vector<Size>& shape() const { return shape_; }
    Size count() const {
        Size count = 1;
        for (const Size n : shape_) count *= n;
        return count;
    }

    saccade::Tensor tensor() {
        saccade::Tensor tensor;
        if (!*this) return tensor;
        tensor.data = memory_.data + origin_ * static_cast<Size>(bytes()), tensor.dtype = dtype_;
        for (std::size_t i = 0; i < shape_.size(); ++i) tensor.stride[i] = stride_[i];
        return tensor;
    }

    std::vector<double> values() const {
        std::vector<double> values;
        for (const std::size_t place : places()) values.push_back(value(memory_.data + place));
        return values;
    }

    template <class Function>
    void fill(Function value_of) {
        const std::vector<std::size_t> all = places();
        for (std::size_t i = 0; i < all.size(); ++i) set(memory_.data + all[i], value_of(static_cast<Size>(i)));
    }

    // Whether what lies between and around the elements is as it was.
    bool untouched_around() const {
        Memory rest = memory_;
        for (const std::size_t place : places()) std::memset(rest.data + place, 0xff, bytes());
        for (std::size_t i = 0; i < rest.size; ++i)
            if (rest.data[i] != 0xff) return false;
        return true;
    }

    bool same_bits(const Array& other) const {
        return memory_.size == other.memory_.size &&
               (!memory_.size || !std::memcmp(memory_.data, other.memory_.data, memory_.size));
    }

    std::string text() const {
        std::string text = *this ? kNames[static_cast<int>(dtype_)] : "none";
        for (std::size_t i = 0; i < shape_.size(); ++i)
            text += (i ? ", " : " (") + std::to_string(shape_[i]) + ":" + std::to_string(stride_[i]);
        return text + (*this ? ")" : "");
    }

  private:
    // From malloc, without room to spare as a vector may have.
    struct Memory {
        unsigned char* data = nullptr;
        std::size_t size = 0;
        Memory() = default;
        Memory(const Memory& other) { *this = other; }
        Memory& operator=(const Memory& other) {
            if (this == &other) return *this;
            reset(other.size);
            if (size) std::memcpy(data, other.data, size);
            return *this;
        }
        ~Memory() { std::free(data); }
        void reset(std::size_t bytes) {
            std::free(data);
            size = bytes, data = bytes ? static_cast<unsigned char*>(std::malloc(bytes)) : nullptr;
            if (bytes) std::memset(data, 0xff, bytes);
        }
    };

    template <class Number>
    static Number load(const unsigned char* from) {
        Number number;
        std::memcpy(&number, from, sizeof number);
        return number;
    }

    double value(const unsigned char* from) const {
        if (dtype_ == Dtype::float64) return load<double>(from);
        if (dtype_ == Dtype::float16) return static_cast<double>(static_cast<float>(load<Half>(from)));
        if (dtype_ == Dtype::float32) return static_cast<double>(load<float>(from));
        unsigned char wide[4] = {};
        std::memcpy(wide + 2, from, 2);  // the upper half, on the little-endian machines that there are
        return static_cast<double>(load<float>(wide));
    }

    void set(unsigned char* to, double value) const {
        const float less = static_cast<float>(value);
        const Half half = static_cast<Half>(less);
        if (dtype_ == Dtype::float64) std::memcpy(to, &value, 8);
        if (dtype_ == Dtype::float32) std::memcpy(to, &less, 4);
        if (dtype_ == Dtype::float16) std::memcpy(to, &half, 2);
        if (dtype_ == Dtype::bfloat16) std::memcpy(to, reinterpret_cast<const char*>(&less) + 2, 2);
    }

    std::size_t bytes() const { return kBytes[static_cast<int>(dtype_)]; }
    // Where the elements lie, in bytes, the last axis' index running first.
    std::vector<std::size_t> places() const {
        std::vector<std::size_t> places(*this ? 1 : 0, static_cast<std::size_t>(origin_) * bytes());
        for (std::size_t axis = 0; axis < shape_.size(); ++axis) {
            std::vector<std::size_t> next;
            for (const std::size_t place : places)
                for (Size i = 0; i < shape_[axis]; ++i)
                    next.push_back(place + static_cast<std::size_t>(i * stride_[axis]) * bytes());
            places.swap(next);
        }
        return places;
    }

    Dtype dtype_ = Dtype::float32;
    std::vector<Size> shape_, stride_;
    Size origin_ = 0;
    Memory memory_;
};

// ---- a case

struct Case {
    Call call{};
    bool in_double = false;
    Array input, offset, weight, bias, mask, grad;
    Array out, grad_input, grad_offset, grad_weight, grad_bias, grad_mask;  // nothing written yet

    Size work() const {
        return call.batch * call.positions() * call.taps() *
               (call.channels / call.groups * call.channels_out + 8 * call.channels);
    }
    Size base(int axis, Size out, Size tap) const {
        return out * call.stride[axis] - call.padding[axis] + tap * call.dilation[axis];
    }
};

bool draw_sizes(Random& random, Case& drawn) {
    Call& call = drawn.call;
    // Rare kinds: many channels (runs are cut, columns flushed), weights beyond the kernels' own limit, many positions.
    const Size kind = random.below(40);
    const bool deep = kind == 0, heavy = kind == 1, wide = kind < 10 && kind > 1;
    call.batch = random.chance(0.1) ? random.between(4, 9) : random.between(1, 3);
    call.groups = random.of<Size>({1, 1, 1, 2, 3, 4, 6});
    call.offset_groups = random.of<Size>({1, 1, 2, 3, 4});
    call.channels = call.groups * random.between(1, 9);
    while (call.channels % call.offset_groups) call.channels += call.groups;
    call.channels_out = call.groups * (random.chance(0.2) ? random.between(8, 50) : random.between(1, 8));
    if (deep)
        call.batch = 1, call.channels *= 530 / call.channels, call.channels_out = call.groups * random.between(1, 3);
    if (heavy)
        call.batch = 1, call.channels *= 70 / call.channels + 1,
        call.channels_out = call.groups * random.between(300, 500);
    for (int axis = 0; axis < 2; ++axis) {
        call.kernel[axis] = random.chance(0.1) ? random.between(4, 7) : random.between(1, 3);
        if (heavy) call.kernel[axis] = 3;
        call.stride[axis] = random.of<Size>({1, 1, 2, 3});
        call.padding[axis] = random.of<Size>({0, 0, 1, 2, 4});
        call.dilation[axis] = random.of<Size>({1, 1, 1, 2, 3});
        const Size reach = call.dilation[axis] * (call.kernel[axis] - 1) + 1;
        const Size most = deep || heavy ? 3 : wide ? random.of<Size>({1, 30, 150}) : 9;
        call.size[axis] = std::max<Size>(1, reach - 2 * call.padding[axis]) + random.below(most);
        call.out_size[axis] = (call.size[axis] + 2 * call.padding[axis] - reach) / call.stride[axis] + 1;
    }
    return drawn.work() <= (heavy || deep ? 2000000 : wide ? 400000 : 100000);
}

double draw_offset(Random& random, double spread, Size kind, Size base, Size size) {
    constexpr double inf = std::numeric_limits<double>::infinity();
    if (random.chance(0.03))
        return random.of({std::nan(""), inf,         -inf,         1e9,         -1e9,       3e38,
                          -3e38,        1e300,       -1e300,       16777216.,   -16777217., 536870912.,
                          -536870912.,  2147483648., -2147483648., 4294967295., 1e19,       -1e-10,
                          1e-40,        -1e-40,      -0.,          0.99999997});
    if (kind == 1) return static_cast<double>(random.between(-3, 3));
    if (kind == 2) {  // onto the border of the image and of the area where samples count, or a little beside it
        const double to = static_cast<double>(random.of<Size>({-1, 0, size - 1, size, -2, size + 1}) - base);
        return to + random.of({0., 0., 1e-6, -1e-6, 1e-3, -1e-3});
    }
    return random.real(-spread, spread);
}

Case draw(Size seed, Size number) {
    Random random{std::mt19937_64(static_cast<std::uint64_t>(seed) * 1000003 + static_cast<std::uint64_t>(number))};
    Case drawn;
    while (!draw_sizes(random, drawn)) {
    }
    const Call& call = drawn.call;
    drawn.in_double = random.chance(0.3);
    const Dtype narrow = random.of({Dtype::float32, Dtype::float32, Dtype::bfloat16, Dtype::float16});
    const bool mixed = random.chance(0.3);
    const auto dtype = [&] {
        if (mixed) return random.of({Dtype::float32, Dtype::float64, Dtype::bfloat16, Dtype::float16});
        return drawn.in_double ? Dtype::float64 : narrow;
    };
    const auto array = [&](Dtype of, std::vector<Size> shape) {
        Array made(random, of, shape, false);
        made.fill([&](Size) { return random.real(-2, 2); });
        return made;
    };
    const Size y = call.out_size[0], x = call.out_size[1], maps = call.offset_groups * call.taps();
    drawn.input =
        array(drawn.in_double ? Dtype::float64 : narrow, {call.batch, call.channels, call.size[0], call.size[1]});
    drawn.weight = array(dtype(), {call.channels_out, call.channels / call.groups, call.kernel[0], call.kernel[1]});
    if (random.chance(0.5)) drawn.bias = array(dtype(), {call.channels_out});
    if (random.chance(0.5)) drawn.mask = array(dtype(), {call.batch, maps, y, x});
    drawn.offset = array(dtype(), {call.batch, 2 * maps, y, x});
    drawn.grad = array(drawn.weight.dtype(), {call.batch, call.channels_out, y, x});
    const double spread = random.of({0.5, 2., 6.});
    const Size kind = random.below(4);
    drawn.offset.fill([&](Size i) {
        const Size channel = i / (y * x) % (2 * maps), tap = channel / 2 % call.taps();
        const int axis = static_cast<int>(channel % 2);
        const Size at = axis ? i % x : i / x % y, along = axis ? tap % call.kernel[1] : tap / call.kernel[1];
        return draw_offset(random, spread, kind, drawn.base(axis, at, along), call.size[axis]);
    });
    const auto like = [&](const Array& given) {
        return given ? Array(random, given.dtype(), given.shape(), true) : Array();
    };
    drawn.out = like(drawn.grad);
    drawn.grad_input = like(drawn.input), drawn.grad_offset = like(drawn.offset),
    drawn.grad_weight = like(drawn.weight);
    drawn.grad_bias = like(drawn.bias), drawn.grad_mask = like(drawn.mask);
    return drawn;
}

std::string text(const Case& drawn) {
    const Call& c = drawn.call;
    char sizes[400];
    const auto number = [](Size n) { return static_cast<long long>(n); };
    std::snprintf(sizes, sizeof sizes,
                  "batch %lld, channels %lld -> %lld, groups %lld, offset groups %lld, size %lldx%lld -> %lldx%lld, "
                  "kernel %lldx%lld, stride %lld %lld, padding %lld %lld, dilation %lld %lld",
                  number(c.batch), number(c.channels), number(c.channels_out), number(c.groups),
                  number(c.offset_groups), number(c.size[0]), number(c.size[1]), number(c.out_size[0]),
                  number(c.out_size[1]), number(c.kernel[0]), number(c.kernel[1]), number(c.stride[0]),
                  number(c.stride[1]), number(c.padding[0]), number(c.padding[1]), number(c.dilation[0]),
                  number(c.dilation[1]));
    return std::string(sizes) + "\n  input " + drawn.input.text() + ", offset " + drawn.offset.text() + ", weight " +
           drawn.weight.text() + "\n  bias " + drawn.bias.text() + ", mask " + drawn.mask.text() + ", grad " +
           drawn.grad.text() + "\n  out " + drawn.out.text() + ", grad_input " + drawn.grad_input.text() +
           ", grad_offset " + drawn.grad_offset.text() + "\n  grad_weight " + drawn.grad_weight.text() +
           ", grad_bias " + drawn.grad_bias.text() + ", grad_mask " + drawn.grad_mask.text();
}

// ---- the expected numbers

// A sum, that of its terms' magnitudes, and that to which rounding errors are in proportion: there, a pixel's weight
// counts for a half more than it is. It is a difference of positions of about one pixel and has their error, so that
// just inside the border, where it is tiny, it may have few right digits or none.
struct Sum {
    double value = 0, magnitude = 0, rounded = 0;
    Sum() = default;
    explicit Sum(double value) : value(value), magnitude(std::fabs(value)), rounded(magnitude) {}
    void add(double factor, const Sum& term, double inexact = 0) {
        value += factor * term.value, magnitude += std::fabs(factor) * term.magnitude;
        rounded += (std::fabs(factor) + std::fabs(inexact)) * term.rounded;
    }
    Sum operator*(const Sum& other) const {
        Sum product(value * other.value);
        product.magnitude = magnitude * other.magnitude, product.rounded = rounded * other.rounded;
        return product;
    }
};
using Sums = std::vector<Sum>;

struct Expected {
    Sums out, input, offset, weight, bias, mask;
};

Expected expect(const Case& drawn) {
    const Call& c = drawn.call;
    const Size area = c.size[0] * c.size[1], num = c.positions(), taps = c.taps(), maps = c.offset_groups * taps;
    const Size per_group = c.channels / c.groups, out_per_group = c.channels_out / c.groups;
    const auto sized = [](Size n) { return Sums(static_cast<std::size_t>(n)); };
    const auto input = drawn.input.values(), offsets = drawn.offset.values(), weights = drawn.weight.values();
    const auto biases = drawn.bias.values(), masks = drawn.mask.values(), grads = drawn.grad.values();
    Expected e{sized(c.batch * c.channels_out * num), sized(drawn.input.count()), sized(drawn.offset.count()),
               sized(drawn.weight.count()),           sized(c.channels_out),      sized(c.batch * maps * num)};
    for (Size b = 0; b < c.batch; ++b)
        for (Size n = 0; n < c.channels_out; ++n)
            for (Size p = 0; p < num; ++p) {
                const Size at = (b * c.channels_out + n) * num + p;
                e.bias[n].add(1, Sum(grads[at]));
                if (drawn.bias) e.out[at].add(1, Sum(biases[n]));
            }
    for (Size b = 0; b < c.batch; ++b)
        for (Size ch = 0; ch < c.channels; ++ch)
            for (Size tap = 0; tap < taps; ++tap)
                for (Size p = 0; p < num; ++p) {
                    const Size map = (b * maps + ch / (c.channels / c.offset_groups) * taps + tap) * num + p;
                    const Size offset_at[2] = {map / num * 2 * num + p, (map / num * 2 + 1) * num + p};
                    Size low[2];
                    double part[2];
                    bool far = false;
                    for (int axis = 0; axis < 2; ++axis) {
                        double offset = offsets[offset_at[axis]];
                        if (!drawn.in_double) offset = static_cast<double>(static_cast<float>(offset));
                        if (!(std::fabs(offset) < 1e6)) {
                            far = true;
                            break;
                        }
                        const Size out = axis ? p % c.out_size[1] : p / c.out_size[1];
                        const Size along = axis ? tap % c.kernel[1] : tap / c.kernel[1];
                        low[axis] = drawn.base(axis, out, along) + static_cast<Size>(std::floor(offset));
                        part[axis] = offset - std::floor(offset);
                    }
                    // The sum over outputs of weight * gradient: the gradient of mask * sample.
                    Sum arrives;
                    const Size group = ch / per_group;
                    const auto weight_at = [&](Size n) {
                        return ((group * out_per_group + n) * per_group + ch % per_group) * taps + tap;
                    };
                    const auto out_at = [&](Size n) {
                        return (b * c.channels_out + group * out_per_group + n) * num + p;
                    };
                    for (Size n = 0; n < out_per_group; ++n) arrives.add(weights[weight_at(n)], Sum(grads[out_at(n)]));
                    const double mask = drawn.mask ? masks[map] : 1;
                    Sum sample, along_y, along_x;
                    for (Size corner = 0; corner < 4 && !far; ++corner) {
                        const Size y = low[0] + corner / 2, x = low[1] + corner % 2;
                        if (y < 0 || y >= c.size[0] || x < 0 || x >= c.size[1]) continue;
                        const Size at = (b * c.channels + ch) * area + y * c.size[1] + x;
                        const Sum pixel(input[at]);
                        const double wy = corner / 2 ? part[0] : 1 - part[0], wx = corner % 2 ? part[1] : 1 - part[1];
                        sample.add(wy * wx, pixel, 0.5);
                        along_y.add(corner / 2 ? wx : -wx, pixel, 0.5);
                        along_x.add(corner % 2 ? wy : -wy, pixel, 0.5);
                        e.input[at].add(wy * wx * mask, arrives, 0.5 * mask);
                    }
                    e.offset[offset_at[0]].add(mask, arrives * along_y);
                    e.offset[offset_at[1]].add(mask, arrives * along_x);
                    e.mask[map].add(1, arrives * sample);
                    for (Size n = 0; n < out_per_group; ++n) {
                        e.out[out_at(n)].add(mask * weights[weight_at(n)], sample);
                        e.weight[weight_at(n)].add(mask * grads[out_at(n)], sample);
                    }
                }
    return e;
}

// ---- the comparison

double worst_float = 0, worst_double = 0;  // error by the tensor's largest magnitude, where it is not stored in 16 bits

// Empty, or what is wrong with the tensor.
std::string wrong(const Case& drawn, const Array& found, const Sums& expected, double rounding) {
    if (!found) return "";
    double largest = 0;
    for (const Sum& sum : expected) largest = std::max(largest, std::fabs(sum.value));
    const double relative = drawn.in_double ? 1e-12 : 1e-5, unit = drawn.in_double ? 0x1p-53 : 0x1p-24;
    const double stored[] = {0x1p-24, 0, 0x1p-8, 0x1p-11};
    const std::vector<double> values = found.values();
    for (std::size_t i = 0; i < values.size(); ++i) {
        const Sum& sum = expected[i];
        const double value = values[i], error = std::fabs(value - sum.value);
        // Where everything cancels, as in a tensor of one number, the terms say what rounding does.
        double allowed = std::max(relative * largest, 8 * unit * sum.rounded + rounding * sum.magnitude);
        allowed += stored[static_cast<int>(found.dtype())] * std::fabs(sum.value) +
                   (found.dtype() == Dtype::float16 ? 0x1p-24 : 0);
        if (!(error <= allowed)) {
            char line[200];
            std::snprintf(line, sizeof line,
                          "number %zu is %.17g instead of %.17g: off by %.3g, allowed %.3g (largest %.3g)", i, value,
                          sum.value, error, allowed, largest);
            return line;
        }
        if (found.dtype() == Dtype::float32 || found.dtype() == Dtype::float64) {
            const bool in_double = drawn.in_double && found.dtype() == Dtype::float64;
            if (largest > 0 && rounding == 0 && 8 * unit * sum.rounded < relative * largest)
                (in_double ? worst_double : worst_float) =
                    std::max(in_double ? worst_double : worst_float, error / largest);
        }
    }
    return found.untouched_around() ? "" : "memory beside its elements was written";
}

// Run a case in several ways; empty, or what is wrong.
std::string check(const Set& set, const Case& drawn, const Expected& expected, Size number) {
    Case first;
    const Size subset = number % 32;
    for (const int mode : {1, 2, 3, 0}) {  // so many threads, and at last one thread that writes some gradients only
        Case now = drawn;
        Call& call = now.call;
        const auto wanted = [&](int bit, Array& array) {
            if (mode == 0 && !(subset >> bit & 1)) array = Array();
            return array.tensor();
        };
        call.num_threads = mode ? mode : 1;
        call.input = now.input.tensor(), call.offset = now.offset.tensor(), call.weight = now.weight.tensor();
        call.mask = now.mask.tensor();
        Call backward = call;
        call.bias = now.bias.tensor(), call.out = now.out.tensor();
        set.kernels->forward(call);
        backward.grad = now.grad.tensor();
        backward.grad_input = wanted(0, now.grad_input), backward.grad_offset = wanted(1, now.grad_offset);
        backward.grad_weight = wanted(2, now.grad_weight), backward.grad_bias = wanted(3, now.grad_bias);
        backward.grad_mask = wanted(4, now.grad_mask);
        set.kernels->backward(backward);
        const auto in = [&](const std::string& what) {
            return what +
                   (mode ? ", " + std::to_string(mode) + " threads" : ", wanted gradients " + std::to_string(subset));
        };
        for (auto member : {&Case::input, &Case::offset, &Case::weight, &Case::bias, &Case::mask, &Case::grad})
            if (!(now.*member).same_bits(drawn.*member)) return in("an argument was written");
        const struct {
            const char* name;
            Array Case::* array;
            const Sums* expected;
        } results[] = {{"out", &Case::out, &expected.out},
                       {"grad_input", &Case::grad_input, &expected.input},
                       {"grad_offset", &Case::grad_offset, &expected.offset},
                       {"grad_weight", &Case::grad_weight, &expected.weight},
                       {"grad_bias", &Case::grad_bias, &expected.bias},
                       {"grad_mask", &Case::grad_mask, &expected.mask}};
        for (const auto& result : results) {
            if (mode > 1 && !(now.*result.array).same_bits(first.*result.array))
                return in(std::string(result.name) + ": not the bits that one thread gives");
            // What samples are factors of: the gradients of samples are products of the tensors' own numbers.
            const bool rounds = set.bf16 && !drawn.in_double && drawn.weight.dtype() == Dtype::bfloat16 &&
                                (result.array == &Case::out || result.array == &Case::grad_weight);
            const std::string message =
                mode > 1 ? "" : wrong(now, now.*result.array, *result.expected, rounds ? 0x1p-8 : 0);
            if (!message.empty()) return in(std::string(result.name) + ": " + message);
        }
        if (mode == 1) first = now;
    }
    return "";
}

// ---- threads

std::set<pthread_t> seen_threads() {
    struct Seen {
        pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
        std::set<pthread_t> threads;
    } seen;
    // Each of two items waits for the other one, some seconds at most: one thread would take them one after the other.
    saccade::parallel_for(
        2, 2,
        [](void* context, Size, int) {
            Seen& all = *static_cast<Seen*>(context);
            const time_t end = time(nullptr) + 20;
            for (bool done = false; !done && time(nullptr) < end; usleep(100)) {
                pthread_mutex_lock(&all.mutex);
                all.threads.insert(pthread_self());
                done = all.threads.size() == 2;
                pthread_mutex_unlock(&all.mutex);
            }
        },
        &seen);
    return seen.threads;
}

// A forked child has no pool of threads; it must go on with one instead of waiting for them.
bool child_survives() {
    const pid_t child = fork();
    if (child == 0) {
        alarm(60);
        Size sum = 0;  // by one thread, so no race
        saccade::parallel_for(
            2, 100, [](void* context, Size item, int) { *static_cast<Size*>(context) += item; }, &sum);
        _exit(sum == 4950 ? 0 : 1);
    }
    int status = 1;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

int main(int argc, char** argv) {
    const Size cases = argc > 1 ? std::atoll(argv[1]) : 300, seed = argc > 2 ? std::atoll(argv[2]) : 1;
    const std::string wanted = argc > 3 ? argv[3] : "all";
    const Size begin = argc > 4 ? std::atoll(argv[4]) : 0;
    std::vector<const Set*> chosen;
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
    for (const Set& set : kSets) {
        const bool has = !set.ask || set.kernels->supported(), best = wanted == "best" && chosen.empty();
        std::printf("%s: %s\n", set.kernels->instructions,
                    has ? "this processor has it" : "this processor does not have it");
        if (has && (wanted == "all" || best || wanted == set.kernels->instructions)) chosen.push_back(&set);
    }
    if (chosen.empty()) return std::printf("there are no kernels for %s here\n", wanted.c_str()), 2;
    const std::size_t threads = seen_threads().size();
    if (threads < 2) return std::printf("parallel_for uses one thread: no OpenMP runtime in this process\n"), 1;
#ifndef SACCADE_OWN_THREADS
    if (!child_survives()) return std::printf("parallel_for hangs or fails in a forked child\n"), 1;
#endif
    for (Size number = begin; number < begin + cases; ++number) {
        const Case drawn = draw(seed, number);
        const Expected expected = expect(drawn);
        for (const Set* set : chosen) {
            const std::string message = check(*set, drawn, expected, number);
            if (message.empty()) continue;
            const long long s = seed, n = number;
            std::printf("WRONG: %s\n  %s\n", message.c_str(), text(drawn).c_str());
            std::printf("  repeat: kernel_test 1 %lld %s %lld\n", s, set->kernels->instructions, n);
            return 1;
        }
    }
    std::string names;
    for (const Set* set : chosen) names += std::string(" ") + set->kernels->instructions;
    std::printf("%lld cases, seed %lld, right in:%s; errors up to %.1e (float), %.1e (double)\n",
                static_cast<long long>(cases), static_cast<long long>(seed), names.c_str(), worst_float, worst_double);
    return 0;
}
