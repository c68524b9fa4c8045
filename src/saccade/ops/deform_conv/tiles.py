"""The work of the portable backend, cut into tiles that stay in the cache, and shared among threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saccade.ops.deform_conv.geometry import Geometry, position_dtype
from saccade.ops.deform_conv.rows import (
    Rows,
    Samples,
    Table,
    Two,
    blend,
    by_sample,
    corner_rows,
    gather,
    locate,
    taps_by_sample,
)

# Bytes of gathered columns in a tile. On the CPU, 4 to 8 MiB perform alike, more does not fit into the cache, and with
# less the overhead of starting operations shows.
TILE_BYTES_ON_CPU = 8 << 20
TILE_BYTES_ELSEWHERE = 256 << 20

Result = TypeVar("Result")


@dataclass(frozen=True)
class Tile:
    """Some lines of some output images, and the samples that they are computed from."""

    images: slice
    lines: slice
    table: Table
    samples: Samples
    corners: Int[Tensor, "sample 4"]
    mask: Float[Tensor, "*sample"]  # a single 1 if there is none
    geometry: Geometry

    def cut(self, per_output: Float[Tensor, "batch channel height width"]) -> Tensor:
        """View the part of a tensor that belongs to this tile, as (image, line, column, channel)."""
        return per_output[self.images, :, self.lines].permute(0, 2, 3, 1)

    @cached_property
    def lines_masked(self) -> Two:
        """The weights of both lines, multiplied by the mask."""
        upper, lower = self.samples.lines
        return (upper * self.mask, lower * self.mask) if self.mask.dim() else (upper, lower)

    def sample(self, lines: Two, columns: Two) -> Rows:
        """Gather every sample with the given weights of its two lines and two columns."""
        return gather(self.table, self.corners, blend(lines, columns))

    def columns(self, rows: Rows) -> Float[Tensor, "group position tap_and_channel"]:
        """Lay the samples out for the matrix product."""
        taps, groups = self.geometry.num_taps, self.geometry.groups
        num_positions = len(rows) // (taps * self.geometry.offset_groups)
        return rows.view(num_positions, taps, groups, -1).permute(2, 0, 1, 3).flatten(2)

    def rows(self, columns: Float[Tensor, "group position tap_and_channel"]) -> Rows:
        """Lay the matrix product's columns out as samples: the inverse of `columns`."""
        columns = columns.unflatten(2, (self.geometry.num_taps, -1)).permute(1, 2, 0, 3)
        return columns.reshape(len(self.samples.row), -1).to(self.table.rows.dtype)


def tiles(input: Tensor, offset: Tensor, mask: Tensor | None, geometry: Geometry, images: slice) -> Iterator[Tile]:
    """Cut the work on some images into tiles, image after image; a tile is valid until the next one is requested."""
    if input.shape[0] == 0:
        return
    most = _most_lines(input, geometry)
    height = geometry.out_size[0]
    num_images = _even(images.stop - images.start, max(1, most // height))
    table = Table(num_images, input, geometry.offset_groups)
    taps = taps_by_sample(table, geometry)
    offset = by_sample(offset, geometry, 2)
    mask = None if mask is None else by_sample(mask, geometry, 1)[0]
    no_mask = taps.new_ones(())
    for some in _steps(images, num_images):
        table.images(some.stop - some.start).copy_(input[some])
        for lines in _steps(slice(0, height), _even(height, most)):
            samples = locate(table, offset[:, some, lines], taps[:, :, lines])
            factor = no_mask if mask is None else mask[some, lines].to(taps.dtype).flatten()
            yield Tile(some, lines, table, samples, corner_rows(table, samples), factor, geometry)


def in_threads(work: Callable[[slice], Result], input: Tensor, geometry: Geometry) -> list[Result]:
    """Call `work` for all images; on the CPU, each of as many threads as torch uses gets a share of them.

    The operations on a tile are short. Threads that split each operation wait for each other after each; if another
    process keeps one core busy, this takes three times as long as threads that have their own images and wait once.
    """
    batch, num_threads = input.shape[0], torch.get_num_threads()
    num_tiles = batch * geometry.out_size[0] / _most_lines(input, geometry)
    if input.device.type != "cpu" or num_threads == 1 or num_threads > batch or num_tiles < 4 * num_threads:
        return [work(slice(0, batch))]
    # Both modes are local to a thread, so the other threads have to set them.
    inference = torch.is_inference_mode_enabled()

    def work_quietly(images: slice) -> Result:
        with torch.inference_mode(inference), torch.no_grad():
            return work(images)

    first, *others = _steps(slice(0, batch), -(-batch // num_threads))
    pending = [_threads(num_threads, os.getpid()).submit(work_quietly, images) for images in others]
    torch.set_num_threads(1)
    try:
        return [work(first), *(result.result() for result in pending)]
    finally:
        torch.set_num_threads(num_threads)


@cache
def _threads(num_threads: int, process: int) -> ThreadPoolExecutor:
    """Return a pool of single-threaded workers, which is kept since new threads would have to allocate memory again.

    A forked process has none of its parent's threads, and so gets its own pool.
    """
    return ThreadPoolExecutor(num_threads, "deform_conv2d", torch.set_num_threads, (1,))


def _steps(whole: slice, size: int) -> list[slice]:
    return [slice(first, min(first + size, whole.stop)) for first in range(whole.start, whole.stop, size)]


def _most_lines(input: Tensor, geometry: Geometry) -> int:
    """Return the number of output lines that fit into a tile."""
    budget = TILE_BYTES_ON_CPU if input.device.type == "cpu" else TILE_BYTES_ELSEWHERE
    per_line = geometry.out_size[1] * geometry.num_taps * input.shape[1] * position_dtype(input).itemsize
    return max(1, budget // per_line)


def _even(total: int, most: int) -> int:
    """Return the size of equal parts of `total`, none larger than `most`."""
    return -(-total // max(1, -(-total // most)))
