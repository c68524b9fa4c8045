// The Python module `saccade.ops.deform_conv._cpu`.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "call.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace saccade {

#if defined(__x86_64__)
extern const Kernels avx512, avx2;
#if defined(SACCADE_HAS_AVX512_BF16)
extern const Kernels avx512_bf16;
#endif
#endif
extern const Kernels baseline;

namespace {

// In the order of preference.
std::vector<const Kernels*> supported_kernels() {
    std::vector<const Kernels*> found;
#if defined(__x86_64__)
    __builtin_cpu_init();
#if defined(SACCADE_HAS_AVX512_BF16)
    if (avx512_bf16.supported()) found.push_back(&avx512_bf16);
#endif
    for (const Kernels* kernels : {&avx512, &avx2})
        if (kernels->supported()) found.push_back(kernels);
#endif
    found.push_back(&baseline);
    return found;
}

const Kernels& kernels_for(const std::string& instructions) {
    for (const Kernels* kernels : supported_kernels())
        if (instructions == kernels->instructions) return *kernels;
    throw std::invalid_argument("this processor has no kernels for " + instructions);
}

using Array = nb::ndarray<nb::device::cpu>;
using MaybeArray = std::optional<Array>;

Tensor tensor(const Array& array) {
    Tensor result{array.data()};
    const nb::dlpack::dtype dtype = array.dtype();
    if (dtype == nb::dtype<float>()) {
        result.dtype = Dtype::float32;
    } else if (dtype == nb::dtype<double>()) {
        result.dtype = Dtype::float64;
    } else if (dtype.bits == 16 && dtype.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat)) {
        result.dtype = Dtype::bfloat16;
    } else if (dtype.bits == 16 && dtype.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float)) {
        result.dtype = Dtype::float16;
    } else {
        throw nb::type_error("tensors must be float32, float64, bfloat16 or float16");
    }
    for (std::size_t i = 0; i < array.ndim() && i < 4; ++i) result.stride[i] = array.stride(i);
    return result;
}

Tensor tensor(const MaybeArray& array) { return array ? tensor(*array) : Tensor{}; }

Call call_of(const Array& input, const Array& offset, const Array& weight, const MaybeArray& mask,
             const std::vector<std::int64_t>& settings, int num_threads) {
    if (settings.size() != 8) throw std::invalid_argument("settings must be 8 numbers");
    Call call{};
    call.batch = input.shape(0), call.channels = input.shape(1), call.channels_out = weight.shape(0);
    for (int axis = 0; axis < 2; ++axis) {
        call.size[axis] = input.shape(2 + axis), call.out_size[axis] = offset.shape(2 + axis);
        call.kernel[axis] = weight.shape(2 + axis);
        call.stride[axis] = settings[axis], call.padding[axis] = settings[2 + axis],
        call.dilation[axis] = settings[4 + axis];
    }
    call.groups = settings[6], call.offset_groups = settings[7];
    call.input = tensor(input), call.offset = tensor(offset), call.weight = tensor(weight), call.mask = tensor(mask);
    call.num_threads = num_threads;
    return call;
}

void forward(const std::string& instructions, const Array& input, const Array& offset, const Array& weight,
             const MaybeArray& bias, const MaybeArray& mask, const std::vector<std::int64_t>& settings, int num_threads,
             const Array& out) {
    const Kernels& kernels = kernels_for(instructions);
    Call call = call_of(input, offset, weight, mask, settings, num_threads);
    call.bias = tensor(bias), call.out = tensor(out);
    nb::gil_scoped_release others_may_run;
    kernels.forward(call);
}

void backward(const std::string& instructions, const Array& grad, const Array& input, const Array& offset,
              const Array& weight, const MaybeArray& mask, const std::vector<std::int64_t>& settings, int num_threads,
              const MaybeArray& grad_input, const MaybeArray& grad_offset, const MaybeArray& grad_weight,
              const MaybeArray& grad_bias, const MaybeArray& grad_mask) {
    const Kernels& kernels = kernels_for(instructions);
    Call call = call_of(input, offset, weight, mask, settings, num_threads);
    call.grad = tensor(grad), call.grad_input = tensor(grad_input), call.grad_offset = tensor(grad_offset);
    call.grad_weight = tensor(grad_weight), call.grad_bias = tensor(grad_bias), call.grad_mask = tensor(grad_mask);
    nb::gil_scoped_release others_may_run;
    kernels.backward(call);
}

}  // namespace
}  // namespace saccade

// noconvert: otherwise nanobind would pass a copy of a tensor that it cannot take, and lose results written to it.
NB_MODULE(_cpu, module) {
    module.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const saccade::Kernels* kernels : saccade::supported_kernels()) names.emplace_back(kernels->instructions);
        return names;
    });
    module.def("forward", &saccade::forward, "instructions"_a, "input"_a.noconvert(), "offset"_a.noconvert(),
               "weight"_a.noconvert(), "bias"_a.noconvert().none(), "mask"_a.noconvert().none(), "settings"_a,
               "num_threads"_a, "out"_a.noconvert());
    module.def("backward", &saccade::backward, "instructions"_a, "grad"_a.noconvert(), "input"_a.noconvert(),
               "offset"_a.noconvert(), "weight"_a.noconvert(), "mask"_a.noconvert().none(), "settings"_a,
               "num_threads"_a, "grad_input"_a.noconvert().none(), "grad_offset"_a.noconvert().none(),
               "grad_weight"_a.noconvert().none(), "grad_bias"_a.noconvert().none(), "grad_mask"_a.noconvert().none());
}
