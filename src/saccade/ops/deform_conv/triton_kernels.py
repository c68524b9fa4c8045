"""The Triton kernels of deformable convolution.

They exchange contiguous tensors:

- *rows*: an image, channels last: (image, y, x, run, channel). A run of channels lies in one group and one offset
  group, and is padded with zeros to `width`, a multiple of 16, so that every load is a vector.
- *samples* are numbered by (offset group, output position, tap). Each has a *place*, which is 16 times the number of
  its upper left pixel plus a bit for each of its four pixels that is in the image. Each has four *weights*, one for
  each pixel.
- *columns*: values of samples, or their gradients: (group, output position, tap, run of the group, channel).
- *chains*: linked lists of the samples that have the same upper left pixel. `heads` holds the last sample of each
  list, or -1. `links` holds, for each sample, the one before it in the list, or -1.

All numbers have 32 bits; the caller ensures that they fit. `cut` describes the runs of channels: (channels of a pixel,
channels of a run, runs in a group, runs in an offset group).
"""

from __future__ import annotations

import triton
import triton.language as tl

# No layout in memory depends on these arguments, so other values need no other machine code.
general = triton.jit(
    do_not_specialize=[
        *("sizes", "in_size", "out_size", "stride", "padding", "dilation"),
        *("offset_strides", "mask_strides", "grad_offset_strides", "grad_mask_strides"),
    ]
)


@general
def locate(
    offset,
    mask,
    places,
    weights,
    heads,
    links,
    offset_strides,
    mask_strides,
    in_size,
    out_size,
    stride,
    padding,
    dilation,
    sizes,
    HAS_MASK: tl.constexpr,
    CHAINS: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Compute places and weights; CHAINS "linked" also chains samples, "keys" only writes their chains to `links`."""
    num_positions, num_taps, num_planes, kernel_width = sizes
    height, width = in_size
    out_height, out_width = out_size
    plane = tl.program_id(0) % num_planes
    position = tl.program_id(0) // num_planes * BLOCK_M + tl.arange(0, BLOCK_M)
    live = position < num_positions
    image, inner = position // (out_height * out_width), position % (out_height * out_width)
    out_y, out_x = inner // out_width, inner % out_width
    group, tap = plane // num_taps, plane % num_taps
    sample = (group * num_positions + position) * num_taps + tap

    at = offset + image * offset_strides[0] + plane * 2 * offset_strides[1] + inner * offset_strides[2]
    offset_y = tl.load(at, live, 0).to(tl.float32)
    offset_x = tl.load(at + offset_strides[1], live, 0).to(tl.float32)
    # Split only the offset into whole pixels and a fraction: adding the position first would round the fraction.
    y = tl.floor(offset_y) + (out_y * stride[0] - padding[0] + tap // kernel_width * dilation[0]).to(tl.float32)
    x = tl.floor(offset_x) + (out_x * stride[1] - padding[1] + tap % kernel_width * dilation[1]).to(tl.float32)
    # False for NaN. Positions outside are not converted to integers, in which they may not fit.
    inside = live & (y >= -1) & (y < height) & (x >= -1) & (x < width)
    y, x = tl.where(inside, y, 0).to(tl.int32), tl.where(inside, x, 0).to(tl.int32)
    offset_y, offset_x = tl.where(inside, offset_y, 0), tl.where(inside, offset_x, 0)
    part_y, part_x = (offset_y - tl.floor(offset_y))[:, None], (offset_x - tl.floor(offset_x))[:, None]

    corner = tl.arange(0, 4)[None, :]
    lower, right = corner // 2 == 1, corner % 2 == 1
    corner_y, corner_x = y[:, None] + corner // 2, x[:, None] + corner % 2
    exists = inside[:, None] & (corner_y >= 0) & (corner_y < height) & (corner_x >= 0) & (corner_x < width)
    weight = tl.where(lower, part_y, 1 - part_y) * tl.where(right, part_x, 1 - part_x)
    if HAS_MASK:
        at = mask + image * mask_strides[0] + plane * mask_strides[1] + inner * mask_strides[2]
        weight *= tl.load(at, live, 0).to(tl.float32)[:, None]
    tl.store(weights + sample[:, None] * 4 + corner, tl.where(exists, weight, 0), live[:, None])
    pixel = (image * height + y) * width + x
    tl.store(places + sample, pixel * 16 + tl.sum(exists.to(tl.int32) << corner, 1), live)

    if CHAINS != "none":
        image += group * (num_positions // (out_height * out_width))
        chain = (image * (height + 1) + y + 1) * (width + 1) + x + 1
        if CHAINS == "linked":
            before = tl.atomic_xchg(heads + chain, sample, inside, sem="relaxed")
            tl.store(links + sample, before, inside)
        else:
            tl.store(links + sample, tl.where(inside, chain, 2147483647), live)


@triton.jit
def _load_sample(places, weights, sample, live):
    at = weights + sample * 4
    w00, w01 = tl.load(at, live, 0), tl.load(at + 1, live, 0)
    w10, w11 = tl.load(at + 2, live, 0), tl.load(at + 3, live, 0)
    return tl.load(places + sample, live, 0) >> 4, w00, w01, w10, w11


@triton.jit
def _blend(p00, p01, p10, p11, w00, w01, w10, w11):
    upper = p00.to(tl.float32) * w00[:, None] + p01.to(tl.float32) * w01[:, None]
    return upper + p10.to(tl.float32) * w10[:, None] + p11.to(tl.float32) * w11[:, None]


@triton.jit
def _low(pair):
    return (pair << 16).to(tl.float32, bitcast=True)


@triton.jit
def _high(pair):
    return (pair & -65536).to(tl.float32, bitcast=True)


@triton.jit
def _interpolate(source, at, right, below, w00, w01, w10, w11, BLOCK_K: tl.constexpr):
    """Sum four pixels by weight; pixels without weight, which may lie outside the image, are not loaded."""
    PAIRS: tl.constexpr = source.dtype.element_ty == tl.bfloat16
    PER_LOAD: tl.constexpr = 2 if PAIRS else 1
    if PAIRS:
        source = source.to(tl.pointer_type(tl.int32), bitcast=True)
    right, below = right // PER_LOAD, below // PER_LOAD
    at = (at // PER_LOAD)[:, None] + tl.arange(0, BLOCK_K // PER_LOAD)[None, :]
    p00 = tl.load(source + at, (w00 != 0)[:, None], 0)
    p01 = tl.load(source + right + at, (w01 != 0)[:, None], 0)
    p10 = tl.load(source + below + at, (w10 != 0)[:, None], 0)
    p11 = tl.load(source + below + right + at, (w11 != 0)[:, None], 0)
    if PAIRS:
        # Unpacked by hand: the compiler's own way takes one and a half times as long.
        low = _blend(_low(p00), _low(p01), _low(p10), _low(p11), w00, w01, w10, w11)
        high = _blend(_high(p00), _high(p01), _high(p10), _high(p11), w00, w01, w10, w11)
        values = tl.reshape(tl.join(low, high), [at.shape[0], BLOCK_K])
    else:
        values = _blend(p00, p01, p10, p11, w00, w01, w10, w11)
    return values


@general
def convolve(
    rows,
    samples,
    kernels,
    bias,
    out,
    out_strides,
    positions_per_image,
    channels_out,
    kernels_width,
    cut,
    sizes,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Multiply the columns by the kernels; the columns are computed a tile at a time and never stored.

    `kernels` is stored in the order of reading: (group, run, block of channels, tap, channel, output channel).
    """
    places, weights = samples
    pixel_stride, width, runs_per_group, runs_per_offset_group = cut
    num_positions, num_taps, image_width = sizes
    num_blocks = kernels_width // BLOCK_N
    n = tl.program_id(0) % num_blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    position = tl.program_id(0) // num_blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    live = position < num_positions
    first_run = tl.program_id(1) * runs_per_group
    kernels += first_run * width * num_taps * kernels_width
    at_kernel = (tl.arange(0, BLOCK_K) * kernels_width)[:, None] + n[None, :]
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for run in range(first_run, first_run + runs_per_group):
        for channel in range(0, width, BLOCK_K):
            source = rows + run * width + channel
            shift = run // runs_per_offset_group * num_positions * num_taps
            pixel, w00, w01, w10, w11 = _load_sample(places + shift, weights + shift * 4, position * num_taps, live)
            # Taps are the innermost loop: the pixels of one tap are mostly still in the cache for the next.
            for tap in range(num_taps):
                kernel = tl.load(kernels + at_kernel)
                at, below = pixel * pixel_stride, image_width * pixel_stride
                column = _interpolate(source, at, pixel_stride, below, w00, w01, w10, w11, BLOCK_K)
                # Load the next tap's samples one iteration ahead. This also keeps the compiler from interpolating in
                # the layout of the product, which takes four exchanges between threads instead of one.
                kernels += BLOCK_K * kernels_width
                shift += 1
                more = live & (tap + 1 < num_taps)
                pixel, w00, w01, w10, w11 = _load_sample(places + shift, weights + shift * 4, position * num_taps, more)
                total = tl.dot(column.to(kernel.dtype), kernel, total, input_precision=PRECISION)
    n_all = tl.program_id(1) * channels_out + n
    if HAS_BIAS:
        total += tl.load(bias + n_all, n < channels_out, 0).to(tl.float32)[None, :]
    image, inner = position // positions_per_image, position % positions_per_image
    at = (image * out_strides[0] + inner * out_strides[2])[:, None] + (n_all * out_strides[1])[None, :]
    tl.store(out + at, total, live[:, None] & (n < channels_out)[None, :])


@general
def differentiate(
    rows,
    samples,
    offset,
    mask,
    grad_columns,
    columns,
    grad_offset,
    grad_mask,
    offset_strides,
    mask_strides,
    grad_offset_strides,
    grad_mask_strides,
    cut,
    sizes,
    HAS_MASK: tl.constexpr,
    NEED_COLUMNS: tl.constexpr,
    NEED_OFFSET: tl.constexpr,
    NEED_MASK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Write the columns, for the gradient of the kernels; compute the gradients of offset and mask from theirs."""
    pixel_stride, width, runs_per_group, runs_per_offset_group = cut
    places, weights = samples
    num_samples, num_taps, image_width, positions_per_image = sizes
    group = tl.program_id(1)
    sample = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    live = sample < num_samples
    place = tl.load(places + group * num_samples + sample, live, 0)
    pixel, w00, w01, w10, w11 = _load_sample(places, weights, group * num_samples + sample, live)
    # A weight of zero does not mean outside here: at a whole pixel, the next one has no weight but counts in the slope.
    is00, is01 = (place & 1 != 0)[:, None], (place & 2 != 0)[:, None]
    is10, is11 = (place & 4 != 0)[:, None], (place & 8 != 0)[:, None]
    lane = tl.arange(0, BLOCK_K)[None, :]
    at, below = (pixel * pixel_stride)[:, None] + lane, image_width * pixel_stride
    at_column = (sample * runs_per_group * width)[:, None] + lane
    d00 = tl.zeros([BLOCK_M], tl.float32)
    d01, d10, d11 = d00, d00, d00
    for run in range(group * runs_per_offset_group, (group + 1) * runs_per_offset_group):
        shift = (run // runs_per_group * num_samples * runs_per_group + run % runs_per_group) * width
        for channel in range(0, width, BLOCK_K):
            source = rows + run * width + channel
            p00 = tl.load(source + at, is00, 0).to(tl.float32)
            p01 = tl.load(source + pixel_stride + at, is01, 0).to(tl.float32)
            p10 = tl.load(source + below + at, is10, 0).to(tl.float32)
            p11 = tl.load(source + below + pixel_stride + at, is11, 0).to(tl.float32)
            if NEED_COLUMNS:
                column = _blend(p00, p01, p10, p11, w00, w01, w10, w11)
                tl.store(columns + shift + channel + at_column, column, live[:, None])
            if NEED_OFFSET or NEED_MASK:
                grad = tl.load(grad_columns + shift + channel + at_column, live[:, None], 0).to(tl.float32)
                d00 += tl.sum(grad * p00, 1)
                d01 += tl.sum(grad * p01, 1)
                d10 += tl.sum(grad * p10, 1)
                d11 += tl.sum(grad * p11, 1)
    if NEED_OFFSET or NEED_MASK:
        position, plane = sample // num_taps, group * num_taps + sample % num_taps
        image, inner = position // positions_per_image, position % positions_per_image
        inside = place & 15 != 0
        at = offset + image * offset_strides[0] + plane * 2 * offset_strides[1] + inner * offset_strides[2]
        y, x = tl.load(at, inside, 0).to(tl.float32), tl.load(at + offset_strides[1], inside, 0).to(tl.float32)
        y, x = y - tl.floor(y), x - tl.floor(x)
        if NEED_MASK:
            value = (1 - y) * ((1 - x) * d00 + x * d01) + y * ((1 - x) * d10 + x * d11)
            at = grad_mask + image * grad_mask_strides[0] + inner * grad_mask_strides[2]
            tl.store(at + plane * grad_mask_strides[1], value, live)
        if NEED_OFFSET:
            # The slopes of the interpolation in y and in x.
            down, across = (1 - x) * (d10 - d00) + x * (d11 - d01), (1 - y) * (d01 - d00) + y * (d11 - d10)
            if HAS_MASK:
                at = mask + image * mask_strides[0] + plane * mask_strides[1] + inner * mask_strides[2]
                factor = tl.load(at, inside, 0).to(tl.float32)
                down, across = down * factor, across * factor
            at = grad_offset + image * grad_offset_strides[0] + inner * grad_offset_strides[2]
            at += plane * 2 * grad_offset_strides[1]
            tl.store(at, down, live)
            tl.store(at + grad_offset_strides[1], across, live)


@general
def collect(
    grad_columns, weights, heads, links, grad_rows, in_size, cut, sizes, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr
):
    """Sum, for each pixel, the gradients of all samples that read it, without atomic additions."""
    pixel_stride, width, runs_per_group, runs_per_offset_group = cut
    num_pixels, num_samples = sizes
    height, image_width = in_size
    run = tl.program_id(1)
    group = run // runs_per_offset_group
    # A pixel has four chains: the samples whose upper left, upper right, lower left or lower right pixel it is.
    chain = tl.arange(0, 4 * BLOCK_M)
    corner, pixel = chain // BLOCK_M, tl.program_id(0) * BLOCK_M + chain % BLOCK_M
    image, inner = pixel // (height * image_width), pixel % (height * image_width)
    image += group * (num_pixels // (height * image_width))
    y, x = inner // image_width + 1 - corner // 2, inner % image_width + 1 - corner % 2
    sample = tl.load(heads + (image * (height + 1) + y) * (image_width + 1) + x, pixel < num_pixels, -1)
    channel = tl.program_id(2) * BLOCK_K + tl.arange(0, BLOCK_K)
    shift = run // runs_per_group * num_samples * runs_per_group + run % runs_per_group
    total = tl.zeros([4 * BLOCK_M, BLOCK_K], tl.float32)
    while tl.max(sample, 0) >= 0:
        live = sample >= 0
        weight = tl.load(weights + sample * 4 + corner, live, 0)
        at = ((shift + (sample - group * num_samples) * runs_per_group) * width)[:, None] + channel[None, :]
        sample = tl.load(links + sample, live, -1)
        total += weight[:, None] * tl.load(grad_columns + at, live[:, None], 0).to(tl.float32)
    total = tl.sum(tl.reshape(total, [4, BLOCK_M, BLOCK_K]), 0)
    pixel = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    at = (pixel * pixel_stride + run * width)[:, None] + channel[None, :]
    tl.store(grad_rows + at, total, (pixel < num_pixels)[:, None])
