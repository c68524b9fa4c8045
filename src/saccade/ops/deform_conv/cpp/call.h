// What one call of a kernel is given, in plain C++: no Python, no torch.
#pragma once

#include <cstddef>
#include <cstdint>

namespace saccade {

enum class Dtype { float32, float64, bfloat16, float16 };

// A tensor that the caller owns. Strides are in elements, and may have any value, also zero.
struct Tensor {
    void* data = nullptr;  // null: not given, or not wanted
    Dtype dtype = Dtype::float32;
    std::int64_t stride[4] = {0, 0, 0, 0};
};

// Pairs are (y, x). The caller has checked that everything fits together and that nothing is empty.
struct Call {
    std::int64_t batch, channels, channels_out, groups, offset_groups;
    std::int64_t size[2], out_size[2], kernel[2], stride[2], padding[2], dilation[2];
    Tensor input, offset, weight, bias, mask;
    Tensor out;                                                         // forward writes this
    Tensor grad;                                                        // backward reads this,
    Tensor grad_input, grad_offset, grad_weight, grad_bias, grad_mask;  // and writes what is wanted of these
    int num_threads;

    std::int64_t taps() const { return kernel[0] * kernel[1]; }
    std::int64_t positions() const { return out_size[0] * out_size[1]; }
};

// Calls body(context, item, thread) once for every item; two threads never have the same number at the same time. Any
// thread may get any item, so kernels give every item its own result, with the same bits for any number of threads.
using Body = void (*)(void* context, std::int64_t item, int thread);
void parallel_for(int num_threads, std::int64_t num_items, Body body, void* context);

// One set of kernels, compiled for one instruction set.
struct Kernels {
    const char* instructions;
    bool (*supported)();
    void (*forward)(const Call&);
    void (*backward)(const Call&);
};

}  // namespace saccade
