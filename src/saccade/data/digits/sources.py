"""Sources of digit images: scikit-learn's digits, MNIST, drawn strokes, or any folder with four IDX files."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from saccade.data.digits import idx, strokes
from saccade.errors import DataError, unknown_name

SPLITS = ("train", "validation", "test")
NUM_CLASSES = 10
IMAGE_SIZE = 28

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
# The four files of a source, with the md5 of MNIST's gzip files on both mirrors.
MNIST_MD5 = {
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}
FILES = tuple(MNIST_MD5)

_MAX_DOWNLOAD_BYTES = 1 << 26

# The k-th image of a class in scikit-learn's file goes to entry k modulo 10. Neighbours in the file are by the same
# writer, so that every split contains every writer.
_UCI_PATTERN = ("train", "train", "test", "train", "train", "validation", "train", "train", "test", "train")


@dataclass(frozen=True, eq=False)
class Digits:
    """Labelled 28x28 digit images of one split.

    *Conventions:* images are light on dark, 0 to 255, `[num, y, x]`; labels are 0 to 9.
    """

    images: UInt8[Tensor, "num height width"]
    labels: Int64[Tensor, "num"]
    source: str
    split: str

    def sha256(self) -> str:
        """Return the checksum of images and labels, which distinguishes sources of the same name."""
        return hashlib.sha256(self.images.numpy().tobytes() + self.labels.numpy().tobytes()).hexdigest()


@dataclass(frozen=True)
class DigitSource:
    """A digit source: its name, the folder of its files (None if it has none), and one line on why it was chosen."""

    name: str
    folder: Path | None
    reason: str

    def __str__(self) -> str:
        return f"{self.name}, {self.reason}"


def load(
    digits: str = "auto",
    split: str = "train",
    *,
    digits_dir: Path | None = None,
    download: bool = True,
    say: Callable[[str], None] | None = None,
) -> Digits:
    """Load one split of a digit source.

    *Conventions:* splits never share an image. UCI is split 70/10/20 within each class. Other sources have their own
    test split, and validation is the last sixth of their training images (MNIST: 10,000).

    Args:
        digits: `uci`, `mnist`, `strokes` (as drawn with a mouse), `auto` (MNIST if it is already there, else UCI; never
            downloads), a folder, or several joined by `+`, such as `mnist+strokes`.
        split: `train`, `validation` or `test`.
        digits_dir: the folder that is searched for MNIST before the user cache.
        download: whether `mnist` may be downloaded into the user cache if it is not found.
        say: a function that is called with one line: the source and the reason for its choice.

    Raises:
        UsageError: if the source or the split is unknown.
        DataError: if a file is missing, truncated or of another kind, or MNIST cannot be downloaded.

    Example:
        >>> test = load("uci", "test")
        >>> test.images.shape, test.labels[:5].tolist()
        (torch.Size([358, 28, 28]), [0, 1, 2, 3, 4])

    Source: Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI, 1998; LeCun, Cortes and
    Burges, "The MNIST database of handwritten digits", 1998.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    source = resolve(digits, digits_dir)
    if say is not None:
        say(f"digits: {source}")
    if _are_several(digits):
        parts = [load(part, split, digits_dir=digits_dir, download=download) for part in digits.split("+")]
        images, labels = torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])
        return Digits(images, labels, source.name, split)
    if source.name == "strokes":
        return Digits(*strokes.images(split), source.name, split)
    if source.folder is None:
        return _load_uci(split)
    if digits == "mnist" and len(_found(source.folder)) < len(FILES):
        if not download:
            raise DataError(f"MNIST is {source.reason}, but downloading is off; {_wanted_files()}")
        download_mnist(source.folder)
    return _load_folder(source.name, source.folder, split)


def resolve(digits: str = "auto", digits_dir: Path | None = None) -> DigitSource:
    """Return the source that a name means, without reading or downloading it.

    Args:
        digits: `uci`, `mnist`, `strokes`, `auto`, a folder, or several joined by `+`.
        digits_dir: the folder that is searched for MNIST before the user cache.

    Raises:
        UsageError: if `digits` is neither a known name nor a folder.
        DataError: if the folder lacks some of the four files, or `digits_dir` is not a folder.

    Example:
        >>> resolve("uci").reason
        'bundled with scikit-learn'
    """
    if digits_dir is not None and not digits_dir.is_dir():
        raise DataError(f"{digits_dir} is not a folder; --digits-dir must name the folder with the files of MNIST")
    if _are_several(digits):
        parts = [resolve(part, digits_dir) for part in digits.split("+")]
        return DigitSource("+".join(part.name for part in parts), None, "; ".join(part.reason for part in parts))
    if digits == "uci":
        return DigitSource("uci", None, "bundled with scikit-learn")
    if digits == "strokes":
        return DigitSource("strokes", None, "drawn when they are needed")
    if digits in ("auto", "mnist"):
        return _resolve_mnist(digits_dir, or_uci=digits == "auto")
    folder = Path(digits).expanduser()
    if not folder.is_dir():
        raise unknown_name(
            "digit source", digits, ("auto", "uci", "mnist", "strokes", "a folder with four IDX files", "mnist+strokes")
        )
    _found_all(folder)
    # torchvision puts the files of every dataset into a folder called `raw`.
    inside = folder.resolve()
    return DigitSource(inside.parent.name if inside.name == "raw" else inside.name, folder, f"from {folder}")


def _are_several(digits: str) -> bool:
    # The name of a folder may contain a plus too.
    return "+" in digits and not Path(digits).expanduser().is_dir()


def mnist_cache() -> Path:
    """Return the folder of the user cache into which MNIST is downloaded.

    Example:
        >>> mnist_cache().parts[-2:]
        ('saccade', 'mnist')
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "saccade" / "mnist"


def _resolve_mnist(digits_dir: Path | None, *, or_uci: bool) -> DigitSource:
    # If the folder of the user holds only some of the four files, report this; do not take files from elsewhere.
    if digits_dir is not None and not or_uci and _found(digits_dir):
        _found_all(digits_dir)
    cache = mnist_cache()
    places = [cache] if digits_dir is None else [digits_dir, cache]
    for tried, place in enumerate(places):
        if len(_found(place)) == len(FILES):
            return DigitSource("mnist", place, f"from {place}" + (f", as {digits_dir} has none" if tried else ""))
    searched = " or ".join(map(str, places))
    if or_uci:
        return DigitSource("uci", None, f"bundled with scikit-learn, as MNIST is not in {searched}")
    return DigitSource("mnist", cache, f"to be downloaded, as it is not in {searched}")


def _spellings(stem: str) -> list[str]:
    """Return the possible names of a file; later names are preferred."""
    return [name + packing for packing in (".gz", "") for name in (stem.replace("-idx", ".idx"), stem)]


def _found(folder: Path) -> dict[str, Path]:
    """Return the paths of those of the four files that a folder holds."""
    paths = ((stem, folder / name) for stem in FILES for name in _spellings(stem))
    # Unlike Path.is_file, isfile raises no error in a folder without permission.
    return {stem: path for stem, path in paths if os.path.isfile(path)}  # noqa: PTH113


def _found_all(folder: Path) -> dict[str, Path]:
    found = _found(folder)
    for stem in FILES:
        if stem not in found:
            raise DataError(f"no {stem} in {folder} (tried {', '.join(_spellings(stem))}); {_wanted_files()}")
    return found


def _wanted_files() -> str:
    return f"a digit source is a folder with {', '.join(FILES)}, each plain or .gz"


def _load_uci(split: str) -> Digits:
    from sklearn.datasets import load_digits  # the import takes a second, and only UCI needs it

    bundled = load_digits()
    small, labels = torch.from_numpy(bundled.images), torch.from_numpy(bundled.target).long()
    # 8 -> 20 pixels in a frame of 28, as in MNIST. The padding comes first, so that strokes end smoothly.
    framed = F.pad(small[:, None] * (255 / 16), (2, 2, 2, 2))
    large = F.interpolate(framed, size=30, mode="bicubic", antialias=True)[:, 0, 1:-1, 1:-1]
    images = large.round().clamp(0, 255).to(torch.uint8)
    kept = _uci_indices(labels, split)
    return Digits(images[kept], labels[kept], "uci", split)


def _uci_indices(labels: Int64[Tensor, "num"], split: str) -> Int64[Tensor, "kept"]:
    """Return the indices of a split: a fixed share of every class."""
    seen = [0] * NUM_CLASSES
    kept = []
    for index, label in enumerate(labels.tolist()):
        if _UCI_PATTERN[seen[label] % len(_UCI_PATTERN)] == split:
            kept.append(index)
        seen[label] += 1
    return torch.tensor(kept)


def _load_folder(name: str, folder: Path, split: str) -> Digits:
    found = _found_all(folder)
    prefix = "t10k" if split == "test" else "train"
    images_path, labels_path = found[f"{prefix}-images-idx3-ubyte"], found[f"{prefix}-labels-idx1-ubyte"]
    images, labels = idx.read(images_path, (IMAGE_SIZE, IMAGE_SIZE)), idx.read(labels_path)
    if len(images) != len(labels):
        raise DataError(f"{len(images)} images in {images_path}, but {len(labels)} labels in {labels_path}")
    if len(labels) and labels.max() >= NUM_CLASSES:
        raise DataError(f"{labels_path} has label {labels.max()}; digits are 0 to {NUM_CLASSES - 1}")
    part = _part(len(images), split)
    if part.start == part.stop:
        raise DataError(f"{images_path} has {len(images)} images, too few for a {split} split")
    kept = torch.from_numpy(images)[part]
    if part.start:  # a copy frees the memory of the other images
        kept = kept.clone()
    return Digits(kept, torch.from_numpy(labels)[part].long(), name, split)


def _part(num: int, split: str) -> slice:
    cut = num - num // 6
    return {"train": slice(0, cut), "validation": slice(cut, num), "test": slice(0, num)}[split]


def download_mnist(
    folder: Path,
    *,
    mirrors: Sequence[str] = MIRRORS,
    md5: Mapping[str, str] = MNIST_MD5,
    timeout_s: float = 20.0,
) -> None:
    """Download the missing files of MNIST into a folder.

    A file is checked and then written atomically.

    Args:
        folder: the folder for the files; it is created if needed.
        mirrors: addresses that end in a slash, tried in this order for every file.
        md5: the checksum of each packed file.
        timeout_s: how long a mirror may stay silent, in seconds.

    Raises:
        DataError: if no mirror has the correct file, or the folder cannot be written.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    missing = [stem for stem in FILES if stem not in _found(folder)]
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for stem in missing:
            packed = _fetch(f"{stem}.gz", md5[stem], mirrors, timeout_s, progress)
            _write_whole(folder / f"{stem}.gz", packed)


def _fetch(name: str, md5: str, mirrors: Sequence[str], timeout_s: float, progress: Progress) -> bytes:
    """Return a file from the first mirror whose copy has the right checksum."""
    failures = []
    for mirror in mirrors:
        try:
            data = _get(mirror + name, timeout_s, progress)
        except (OSError, HTTPException) as error:
            failures.append(f"{mirror}{name}: {error}")
            continue
        came = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if came == md5:
            return data
        failures.append(f"{mirror}{name}: md5 {came} of {len(data)} bytes, {md5} wanted")
    raise DataError(
        f"cannot download MNIST ({'; '.join(failures)}); name the folder of its files with --digits-dir, or use uci"
    )


def _get(url: str, timeout_s: float, progress: Progress) -> bytes:
    task = progress.add_task(url.rpartition("/")[2], total=None)
    data = bytearray()
    with urlopen(url, timeout=timeout_s) as response:
        progress.update(task, total=response.length)
        while len(data) <= _MAX_DOWNLOAD_BYTES and (block := response.read(1 << 16)):
            data += block
            progress.update(task, completed=len(data))
    return bytes(data)


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file by atomic rename."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as scratch:
            part = Path(scratch) / path.name
            part.write_bytes(data)
            part.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}; set XDG_CACHE_HOME to another folder for the cache") from error
