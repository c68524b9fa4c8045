import gzip
import hashlib
import os
import struct
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from saccade.data.digits import Motion, MovingDigits, sources
from saccade.data.digits.sources import FILES, MNIST_MD5, SPLITS, download_mnist, load, resolve
from saccade.errors import DataError, UsageError

REPOSITORY = Path(__file__).parents[3]
MNIST = Path(os.environ.get("SACCADE_MNIST", REPOSITORY.parent / "shared" / "data" / "mnist"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep the user's cache and proxies out of the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache" / "saccade" / "mnist"


def idx(values, *, dtype=0x08):
    values = np.asarray(values)
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, dtype, values.ndim, *values.shape) + values.tobytes()


def contents(num_train=60, num_test=20, size=28):
    """Make the four files of a source whose image k of the training part starts with the pixel k."""
    made = {}
    for prefix, num in (("train", num_train), ("t10k", num_test)):
        images = np.zeros((num, size, size), np.uint8)
        images[:, 0, 0] = np.arange(num)
        made[f"{prefix}-images-idx3-ubyte"] = idx(images)
        made[f"{prefix}-labels-idx1-ubyte"] = idx(np.arange(num, dtype=np.uint8) % 10)
    return made


def write(folder, made, *, name=str, packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for stem, content in made.items():
        path = folder / (name(stem) + (".gz" if packed else ""))
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder


# --- UCI


@pytest.fixture(scope="module")
def uci_found():
    """Find each split's images in scikit-learn's file, scaled up: how alike they are, and the places in the file."""
    from sklearn.datasets import load_digits

    small = torch.from_numpy(load_digits().images).unsqueeze(1)
    everything = torch.nn.functional.interpolate(small, size=20, mode="bicubic").flatten(1)
    found = {}
    for split in SPLITS:
        images = load("uci", split).images[:, 4:24, 4:24].double().flatten(1)
        found[split] = torch.corrcoef(torch.cat([images, everything]))[: len(images), len(images) :].max(1)
    return found


def test_uci_splits_are_disjoint_and_leave_nothing_out(uci_found):
    places = torch.cat([uci_found[split].indices for split in SPLITS])
    assert places.sort().values.tolist() == list(range(1797))


def test_uci_split_is_stratified():
    counts = torch.stack([load("uci", split).labels.bincount(minlength=10) for split in SPLITS])
    shares = torch.tensor([[0.7], [0.1], [0.2]]) * counts.sum(0)
    assert counts.sum() == 1797
    assert ((counts - shares).abs() < 1).all()


def test_uci_split_never_changes(uci_found):
    kept = [uci_found[split].indices.numpy().astype("<i4").tobytes() for split in SPLITS]
    assert (
        hashlib.sha256(b"".join(kept)).hexdigest() == "656638b36d4489c7b2e14686692f88c95155aebb6b60a50563852f35d2e9d3d3"
    )


def test_uci_images_look_like_mnist():
    loaded = load("uci", "validation")
    assert loaded.images.shape == (179, 28, 28)
    assert loaded.images.dtype == torch.uint8
    assert loaded.labels.dtype == torch.int64
    assert loaded.images.amax((1, 2)).min() > 200
    frame = loaded.images.clone()
    frame[:, 1:-1, 1:-1] = 0
    assert frame.sum() == 0
    assert (loaded.source, loaded.split) == ("uci", "validation")


def test_uci_upscaling_keeps_the_picture(uci_found):
    from sklearn.datasets import load_digits

    labels = torch.from_numpy(load_digits().target)
    for split in SPLITS:
        assert uci_found[split].values.min() > 0.95
        assert torch.equal(labels[uci_found[split].indices], load("uci", split).labels)


# --- folders of four IDX files


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", [str, lambda stem: stem.replace("-idx", ".idx")], ids=["dash", "dot"])
def test_folder_is_read_in_every_spelling(tmp_path, name, packed):
    folder = write(tmp_path / "fashion", contents(), name=name, packed=packed)
    train, validation, test = (load(str(folder), split) for split in SPLITS)
    assert train.images[:, 0, 0].tolist() == list(range(50))
    assert validation.images[:, 0, 0].tolist() == list(range(50, 60))
    assert test.images[:, 0, 0].tolist() == list(range(20))
    assert validation.labels.tolist() == list(range(10))
    assert (train.source, train.split) == ("fashion", "train")


def test_packed_file_is_known_by_its_content(tmp_path):
    folder = write(tmp_path, {stem: gzip.compress(content) for stem, content in contents().items()})
    assert len(load(str(folder), "test").labels) == 20


def test_a_folder_may_have_a_plus_in_its_name(tmp_path):
    folder = tmp_path / "mnist+mine"
    folder.mkdir()
    with pytest.raises(DataError, match=r"no .* in .*mnist\+mine"):
        resolve(str(folder))


def test_unknown_source_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'mnist'"):
        load("mnits")
    with pytest.raises(UsageError, match="a folder with four IDX files"):
        load("/no/such/folder")


def test_unknown_split_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'train'"):
        load("uci", "trains")


@pytest.mark.parametrize("missing", FILES)
@pytest.mark.parametrize("as_mnist", [True, False])
def test_missing_file_is_named_with_its_folder_and_spellings(tmp_path, missing, as_mnist):
    folder = write(tmp_path / "some", contents())
    (folder / missing).unlink()
    with pytest.raises(DataError, match=f"no {missing} in ") as caught:
        load("mnist", digits_dir=folder) if as_mnist else load(str(folder))
    for told in (str(folder), f"{missing}.gz", missing.replace("-idx", ".idx")):
        assert told in str(caught.value)


def damaged_images():
    whole = contents()["train-images-idx3-ubyte"]
    header, rest = whole[:16], whole[16:]
    huge = struct.pack(">IIII", 0x803, 2**32 - 1, 28, 28)
    packed = gzip.compress(whole)
    garbled = bytearray(packed)
    garbled[20:40] = b"\xff" * 20
    return {
        "empty": (b"", "truncated: its header has 0 of 16"),
        "half a magic": (whole[:3], "truncated: its header has 3 of 16"),
        "half a header": (whole[:9], "truncated: its header has 9 of 16"),
        "cut short": (whole[:-100], "truncated: 60 x 28 x 28 = 47040 bytes wanted, 46940 came"),
        "cut short packed": (packed[: len(packed) // 2], "truncated: 60 x 28 x 28 = 47040 bytes wanted"),
        "packed of a cut file": (gzip.compress(whole[:-100]), "47040 bytes wanted, 46940 came"),
        "too long": (whole + b"\0", "continues after the 60 x 28 x 28 = 47040"),
        "bomb": (gzip.compress(header + rest + bytes(1 << 24)), "continues after the 60 x 28 x 28 = 47040"),
        "claims terabytes": (huge + rest, "claims 4294967295 x 28 x 28"),
        "claims terabytes packed": (gzip.compress(huge + rest), "claims 4294967295 x 28 x 28"),
        "garbled packed": (bytes(garbled), "cannot read"),
        "text": (
            b"<html>not found</html>",
            "starts with 3c 68 74 6d; an IDX file of 3 dimensions starts with 00 00 08 03",
        ),
        "labels": (contents()["train-labels-idx1-ubyte"], "starts with 00 00 08 01"),
        "floats": (idx(np.zeros((60, 28, 28), ">f4"), dtype=0x0D), "IDX type 0x0d; unsigned bytes"),
        "small images": (
            contents(size=20)["train-images-idx3-ubyte"],
            "images of 20x20 pixels; digits are 28x28",
        ),
        "fewer images": (contents(59)["train-images-idx3-ubyte"], "59 images in .*, but 60 labels in"),
    }


@pytest.mark.parametrize("damage", damaged_images())
def test_damaged_images_are_told(tmp_path, damage):
    content, told = damaged_images()[damage]
    write(tmp_path, contents() | {"train-images-idx3-ubyte": content})
    with pytest.raises(DataError, match=told) as caught:
        load(str(tmp_path))
    assert str(tmp_path / "train-images-idx3-ubyte") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(load(str(tmp_path), "test").labels) == 20


def test_label_beyond_the_classes_is_told(tmp_path):
    labels = np.arange(60, dtype=np.uint8) % 11
    write(tmp_path, contents() | {"train-labels-idx1-ubyte": idx(labels)})
    with pytest.raises(DataError, match="has label 10; digits are 0 to 9"):
        load(str(tmp_path))


@pytest.mark.parametrize(("num", "split"), [(0, "train"), (5, "validation")])
def test_too_few_images_for_a_split_are_told(tmp_path, num, split):
    write(tmp_path, contents(num_train=num))
    with pytest.raises(DataError, match=f"has {num} images, too few for a {split} split"):
        load(str(tmp_path), split)


# --- auto and mnist


def test_auto_takes_mnist_from_the_digits_dir_first(tmp_path, cache):
    write(cache, contents(30))
    folder = write(tmp_path / "here", contents())
    lines = []
    assert len(load("auto", digits_dir=folder, say=lines.append).labels) == 50
    assert lines == [f"digits: mnist, from {folder}"]


def test_auto_takes_mnist_from_the_cache_next(tmp_path, cache):
    write(cache, contents(30))
    (tmp_path / "none").mkdir()
    lines = []
    loaded = load("auto", digits_dir=tmp_path / "none", say=lines.append)
    assert (loaded.source, len(loaded.labels)) == ("mnist", 25)
    assert lines == [f"digits: mnist, from {cache}, as {tmp_path / 'none'} has none"]


@pytest.mark.parametrize("name", ["auto", "mnist", "uci"])
def test_a_digits_dir_that_is_not_there_is_told(name, tmp_path):
    with pytest.raises(DataError, match="none is not a folder; --digits-dir must name"):
        resolve(name, tmp_path / "none")


def test_auto_never_downloads(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(sources, "download_mnist", lambda *_args: pytest.fail("downloaded"))
    half = {stem: content for stem, content in contents().items() if "images" in stem}
    folder = write(tmp_path / "half", half)
    lines = []
    assert load("auto", "test", digits_dir=folder, say=lines.append).source == "uci"
    assert lines == [f"digits: uci, bundled with scikit-learn, as MNIST is not in {folder} or {cache}"]
    assert not cache.exists()


def test_mnist_is_not_downloaded_where_that_is_off(cache):
    with pytest.raises(DataError, match=f"not in {cache}, but downloading is off"):
        load("mnist", download=False)


# --- the download


class Mirrors:
    """A real server; each folder of its address serves the files with another fault."""

    def __init__(self, address, served, asked, released):
        self.address, self.served, self.asked, self.released = address, served, asked, released
        self.md5 = {name.removesuffix(".gz"): hashlib.md5(data).hexdigest() for name, data in served.items()}

    def named(self, *faults):
        return [f"{self.address}/{fault}/" for fault in faults]


@pytest.fixture
def server():
    served = {f"{stem}.gz": gzip.compress(content, mtime=0) for stem, content in contents().items()}
    asked, released = [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            _, fault, name = self.path.split("/")
            if fault == "absent" or name not in served:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(served[name])))
            self.end_headers()
            data = served[name]
            if fault == "silent":
                released.wait(30)
            body = {"short": data[:-30], "wrong": bytes(len(data)), "silent": b""}.get(fault, data)
            return self.wfile.write(body)

        def log_message(self, *_args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield Mirrors(f"http://127.0.0.1:{server.server_port}", served, asked, released)
    released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_first_mirror_is_enough(server, cache):
    download_mnist(cache, mirrors=server.named("good", "other"), md5=server.md5)
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == server.served
    assert server.asked == [f"/good/{stem}.gz" for stem in FILES]


@pytest.mark.parametrize("fault", ["absent", "short", "wrong", "silent"])
def test_second_mirror_is_used_when_the_first_fails(server, cache, fault):
    timeout_s = 1 if fault == "silent" else 10
    download_mnist(cache, mirrors=server.named(fault, "good"), md5=server.md5, timeout_s=timeout_s)
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == server.served
    assert len(server.asked) == 2 * len(FILES)


def test_refused_connection_goes_on_to_the_second_mirror(server, cache):
    mirrors = ["http://127.0.0.1:1/", *server.named("good")]
    download_mnist(cache, mirrors=mirrors, md5=server.md5)
    assert len(list(cache.iterdir())) == len(FILES)


def test_error_after_the_last_mirror_names_each_and_leaves_nothing(server, cache):
    absent, wrong = server.named("absent", "wrong")
    with pytest.raises(DataError) as caught:
        download_mnist(cache, mirrors=[absent, wrong], md5=server.md5)
    told = str(caught.value)
    assert f"{absent}{FILES[0]}.gz: HTTP Error 404" in told
    assert f"{wrong}{FILES[0]}.gz: md5 " in told
    assert f"{server.md5[FILES[0]]} wanted" in told
    assert not cache.exists()


def test_interrupted_download_leaves_no_file_and_keeps_the_whole_ones(server, cache, monkeypatch):
    write_bytes = Path.write_bytes

    def interrupted(path, data):
        if "t10k-images" in path.name:
            write_bytes(path, data[:30])
            raise KeyboardInterrupt
        return write_bytes(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            download_mnist(cache, mirrors=server.named("good"), md5=server.md5)
    assert sorted(path.name for path in cache.iterdir()) == sorted(f"{stem}.gz" for stem in FILES[:2])
    server.asked.clear()
    download_mnist(cache, mirrors=server.named("good"), md5=server.md5)
    assert server.asked == [f"/good/{stem}.gz" for stem in FILES[2:]]


def test_write_cut_short_leaves_no_file(server, cache, monkeypatch):
    def full(path, data):
        path.open("wb").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="No space left on device"):
        download_mnist(cache, mirrors=server.named("good"), md5=server.md5)
    assert list(cache.iterdir()) == []


def test_unwritable_cache_is_told(server, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match=r"cannot write .*XDG_CACHE_HOME"):
        download_mnist(tmp_path / "file" / "mnist", mirrors=server.named("good"), md5=server.md5)


def test_mnist_is_downloaded_once_into_the_cache(server, cache, tmp_path, monkeypatch):
    there = partial(download_mnist, mirrors=server.named("good"), md5=server.md5)
    monkeypatch.setattr(sources, "download_mnist", there)
    (tmp_path / "none").mkdir()
    lines = []
    for split in SPLITS:
        loaded = load("mnist", split, digits_dir=tmp_path / "none", say=lines.append)
        assert (loaded.source, loaded.split) == ("mnist", split)
    assert len(server.asked) == len(FILES)
    assert "to be downloaded" in lines[0]
    assert f"from {cache}" in lines[1]
    assert resolve("auto").name == "mnist"


# --- MNIST itself


@pytest.mark.skipif(not MNIST.is_dir(), reason=f"MNIST is not in {MNIST}; SACCADE_MNIST says where")
def test_mnist_has_its_published_sizes_and_order():
    train, validation, test = (load("mnist", split, digits_dir=MNIST) for split in SPLITS)
    assert [len(part.images) for part in (train, validation, test)] == [50_000, 10_000, 10_000]
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    both = torch.cat([train.images, validation.images]).double() / 255
    assert both.mean().item() == pytest.approx(0.1307, abs=5e-5)


@pytest.mark.skipif(not MNIST.is_dir(), reason=f"MNIST is not in {MNIST}; SACCADE_MNIST says where")
def test_md5_sums_are_those_of_mnist():
    paths = [MNIST / f"{stem}.gz" for stem in FILES]
    if not all(path.is_file() for path in paths):
        pytest.skip(f"MNIST in {MNIST} is not packed")
    sums = [hashlib.md5(path.read_bytes()).hexdigest() for path in paths]
    assert sums == list(MNIST_MD5.values())


@pytest.mark.parametrize("split", SPLITS)
def test_joined_sources_keep_each_image_with_its_label(split):
    parts = [load(name, split) for name in ("strokes", "uci")]
    joined = load("strokes+uci", split)
    images = torch.cat([part.images for part in parts])
    labels = torch.cat([part.labels for part in parts])
    assert torch.equal(joined.images, images)
    assert torch.equal(joined.labels, labels)
    # And through the clips: what is shown is the image of the digit that the label names.
    clips = MovingDigits(joined, Motion("normal", 1))
    batch = clips.batch(torch.arange(220), poses=True)
    assert torch.equal(labels[batch.poses.instance], batch.poses.thing)
    shown = images[batch.poses.instance].flatten(2).amax(-1).amax(-1)
    assert torch.equal(batch.frames.flatten(1).amax(-1), shown)
