"""Teaching over HTTP: classes, recordings, deleting, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from urllib.parse import urlencode

import pytest

from saccade.data import collection
from saccade.data.grouping import RECORDED

from .talk import Page
from .test_teach_recording import packed, steady

SESSION = "20261129-180500"


class Lessons:
    """What the page asks of the server to teach."""

    def __init__(self, server, folder):
        self.server, self.folder = server, folder

    def ask(self, what, data=b"", **fields):
        """Return the status and the answer."""
        status, body, _ = self.server.post(f"/api/teach/{what}?{urlencode(fields)}", data)
        return status, json.loads(body)

    def state(self):
        return json.loads(self.server.get("/api/teach")[1])

    def clips(self, name):
        return next(one["clips"] for one in self.state()["classes"] if one["name"] == name)

    def names(self):
        return [one["name"] for one in self.state()["classes"]]

    def record(self, name, data=None, session=SESSION):
        return self.ask("clips", data or packed(steady()), name=name, session=session)

    def files(self):
        return sorted(path for path in self.folder.parent.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def teaching(make_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teach") / "clips"
    server = make_server("--port", 0, "--teach", folder)
    server.wait_for("(no model yet)")
    return Lessons(server, folder)


@pytest.fixture
def lessons(teaching):
    """Give each test a class `wave`; none is left for the next."""
    assert teaching.ask("classes", name="wave")[0] == 200
    yield teaching
    for name in teaching.names():
        assert teaching.ask("delete", name=name)[0] == 200
    assert teaching.names() == ["none"]


def test_a_page_without_a_model_can_teach(teaching):
    with Page(teaching.server) as page:
        hello = page.take_until("hello")
    assert (hello["models"], hello["teaches"], hello["frame_format"]) == ([], True, None)
    state = teaching.state()
    assert state["classes"] == [{"name": "none", "clips": []}]
    assert state["needs"] == ["add a class to learn, such as wave"]
    assert state["training"] is None


def test_a_server_that_does_not_teach_has_no_such_routes(server):
    assert server.get("/api/teach")[0] == 404
    assert server.post("/api/teach/train", b"")[0] in (404, 405)


def test_recordings_are_what_train_reads(lessons):
    assert lessons.ask("classes", name="  beckon  me ")[0] == 200
    assert lessons.names() == ["none", "beckon me", "wave"]
    for name in ("none", "wave", "wave", "beckon me"):
        assert lessons.record(name)[0] == 200
    assert lessons.clips("wave") == [f"wave_r{SESSION}_01.mp4", f"wave_r{SESSION}_02.mp4"]
    found = collection.read(lessons.folder, group=RECORDED)
    assert found.classes == ("beckon me", "none", "wave")
    assert {entry.group for entry in found.entries} == {SESSION}
    assert lessons.state()["needs"] == [
        "none needs 2 more clips",
        "beckon me needs 2 more clips",
        "wave needs 1 more clip",
    ]


def test_names_that_are_none_are_refused(lessons):
    before, names = lessons.files(), lessons.names()
    wrong = ["", "  ", ".", "..", ".hidden", "a/b", "../out", "/tmp/out", "a\\b", "a|b", "a:b", "end.", "bell\x07"]
    known = ["train", "Test", "none", "NONE", "W ave"]
    for name in (*wrong, *known, "x" * 41):
        status, answer = lessons.ask("classes", name=name)
        assert status == 409, name
        assert re.fullmatch(r"[^\n]+", answer["message"])
    assert (lessons.files(), lessons.names()) == (before, names)


def test_what_is_not_there_is_not_recorded_deleted_or_shown(lessons):
    assert lessons.record("wave")[0] == 200
    clip, before = lessons.clips("wave")[0], lessons.files()
    for name in ("gone", "..", ".", "", "../clips", "wave/..", "WAVE", ".deleted"):
        for status, answer in (
            lessons.record(name),
            lessons.ask("delete", name=name),
            lessons.ask("delete", name="wave", clip=name),
            lessons.ask("delete", name=name, clip=clip),
        ):
            assert status == 404, name
            assert "any more" in answer["message"]
        assert lessons.server.get(f"/api/teach/still?{urlencode({'name': name, 'clip': clip})}")[0] == 404
    assert lessons.files() == before


@pytest.mark.parametrize(
    ("status", "data", "session"),
    [(409, packed(steady()), "../../x"), (409, packed(steady()), "20261129"), (404, b"no recording", SESSION)],
)
def test_bad_recordings_leave_nothing(lessons, status, data, session):
    before = lessons.files()
    came, answer = lessons.record("wave", data, session)
    assert came == status
    assert "\n" not in answer["message"]
    assert lessons.files() == before


def test_too_much_is_refused_before_it_is_read(lessons):
    with lessons.server.connect() as connection:
        request = f"POST /api/teach/clips?name=wave&session={SESSION} HTTP/1.1\r\nHost: {lessons.server.netloc}\r\n"
        connection.sendall(f"{request}Content-Length: {1 << 30}\r\n\r\n".encode())
        assert b" 413 " in connection.recv(4096)
    assert lessons.clips("wave") == []


def test_deleted_clips_can_be_taken_back(lessons):
    for _ in range(3):
        lessons.record("wave")
    first, second, third = lessons.clips("wave")
    content = (lessons.folder / "wave" / second).read_bytes()
    assert lessons.ask("delete", name="wave", clip=second)[0] == 200
    assert lessons.clips("wave") == [first, third]
    lessons.record("wave")  # under the name that is free again
    assert lessons.clips("wave") == [first, second, third]
    assert lessons.ask("delete", name="wave", clip=second)[0] == 200
    kept = list((lessons.folder / ".deleted" / "wave").iterdir())
    assert len([path for path in kept if path.stem.startswith(second[:-4])]) >= 2
    assert content in [path.read_bytes() for path in kept]


def test_a_class_is_deleted_with_its_clips_and_none_stays(lessons):
    lessons.record("wave")
    lessons.record("none")
    assert lessons.ask("delete", name="wave")[0] == 200
    assert lessons.names() == ["none"]
    assert lessons.ask("delete", name="none")[0] == 200
    assert lessons.state()["classes"] == [{"name": "none", "clips": []}]
    assert lessons.ask("classes", name="wave")[0] == 200
    assert lessons.clips("wave") == []


def test_a_still_shows_the_clip(lessons):
    lessons.record("wave")
    query = urlencode({"name": "wave", "clip": lessons.clips("wave")[0]})
    status, body, headers = lessons.server.get(f"/api/teach/still?{query}")
    assert (status, headers["content-type"], body[:4]) == (200, "image/png", b"\x89PNG")
    assert int.from_bytes(body[16:20]) == 128  # wide, of 96 high


def test_pages_of_others_may_not_teach(lessons):
    for what in ("classes?name=evil", "delete?name=wave", f"clips?name=wave&session={SESSION}", "train"):
        status, _, _ = lessons.server.post(f"/api/teach/{what}", packed(steady()), Origin="https://evil.example")
        assert status == 403
    assert lessons.state()["classes"] == [{"name": "none", "clips": []}, {"name": "wave", "clips": []}]


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are set only on Linux")
def test_a_full_disk_loses_nothing(lessons):
    import resource

    lessons.record("wave")
    before = lessons.files()
    pid, kind = lessons.server.process.pid, resource.RLIMIT_FSIZE
    unlimited = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (500, unlimited[1]))
    try:
        status, answer = lessons.record("wave")
    finally:
        resource.prlimit(pid, kind, unlimited)
    assert status == 507
    assert answer["message"] == "the server cannot write to its disk: File too large"
    assert lessons.files() == before
    assert lessons.record("wave")[0] == 200  # the page sends it again
    assert len(lessons.clips("wave")) == 2


def test_a_killed_server_leaves_no_half_clip(make_server, tmp_path):
    lessons = Lessons(make_server("--port", 0, "--teach", tmp_path / "clips"), tmp_path / "clips")
    lessons.server.wait_for("(no model yet)")
    assert lessons.ask("classes", name="wave")[0] == 200
    assert [lessons.record(name)[0] for name in ("none", "wave")] == [200, 200]
    (clip,), body = lessons.clips("wave"), packed(steady())
    path = lessons.folder / "wave" / clip
    before = path.read_bytes()
    with lessons.server.connect() as connection:
        request = f"POST /api/teach/clips?name=wave&session={SESSION} HTTP/1.1\r\nHost: {lessons.server.netloc}\r\n"
        connection.sendall(f"{request}Content-Length: {len(body)}\r\n\r\n".encode() + body[: len(body) // 2])
        lessons.server.process.kill()
        lessons.server.process.wait(60)
    killed = (
        "import os, sys; from pathlib import Path; from saccade import files\n"
        "with files.whole(Path(sys.argv[1])) as temporary: temporary.write_bytes(b'half'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", killed, path.with_stem("wave_r1_02")]).returncode == -9
    assert len(list(path.parent.iterdir())) > 1
    again = Lessons(make_server("--port", 0, "--teach", tmp_path / "clips"), tmp_path / "clips")
    assert (again.clips("wave"), path.read_bytes()) == ([clip], before)
    assert len(collection.read(again.folder, group=RECORDED).entries) == 2
    assert again.record("wave")[0] == 200
    assert len(again.clips("wave")) == 2
    shutil.rmtree(tmp_path / "clips")  # or the disk is taken away
    for status, answer in (again.record("wave"), again.ask("classes", name="clap")):
        assert (status, answer["message"]) == (404, "the folder clips is not there any more; put it back")
    assert not (tmp_path / "clips").exists()


def test_training_needs_clips(lessons):
    lessons.record("wave")
    status, answer = lessons.ask("train")
    assert status == 409
    assert answer["message"] == "there are too few clips: none needs 3 more clips, wave needs 2 more clips"


def test_a_folder_with_splits_is_refused(make_server, tmp_path):
    (tmp_path / "clips" / "train").mkdir(parents=True)
    server = make_server("--port", 0, "--teach", tmp_path / "clips")
    assert server.process.wait(60) == 2
    assert "holds the split 'train'" in server.log.read_text()
