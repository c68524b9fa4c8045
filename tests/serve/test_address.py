"""The options that say where the page is found."""

import pytest

from saccade.errors import UsageError
from saccade.serve import ServeConfig
from saccade.serve.address import Name, own_names, parse_name, parse_prefix


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("lab-pc", Name("lab-pc")),
        ("Lab-PC.Example.Org", Name("lab-pc.example.org")),
        ("lab.example.", Name("lab.example")),
        ("lab.example:8443", Name("lab.example", 8443)),
        ("my_host:1", Name("my_host", 1)),
        ("bücher.example:8443", Name("xn--bcher-kva.example", 8443)),
        ("10.0.0.5:80", Name("10.0.0.5", 80)),
        ("[::1]:8443", Name("::1", 8443)),
        ("[0:0:0:0:0:0:0:1]", Name("::1")),
    ],
)
def test_a_name_with_or_without_a_port_is_taken(text, name):
    assert parse_name(text) == name


WRONG_NAMES = [
    "", ".", "*", "*.example", "https://lab.example", "lab.example/", "lab.example/saccade", "lab.example:", ":80",
    "lab.example:65536", "lab.example:http", "a b", "user@lab.example", "-lab", "lab..example", "::1", "[::1", "a,b",
    "lab.example:80:80", "ü..example", "[lab.example]",
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG_NAMES)
def test_any_other_name_is_refused_with_an_example(text):
    for read in (parse_name, lambda text: ServeConfig(allow_host=("lab.example", text))):
        with pytest.raises(UsageError, match=r"--allow-host takes .*, as in lab.example or lab.example:8443; got "):
            read(text)


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("", ""), ("/", ""), ("/saccade", "/saccade"), ("saccade", "/saccade"), ("/saccade/", "/saccade"),
        ("/a/b-c_d.e~f/", "/a/b-c_d.e~f"), ("/.well-known", "/.well-known"), ("/...", "/..."),
    ],
)  # fmt: skip
def test_a_prefix_is_taken_with_or_without_its_slashes(text, prefix):
    assert parse_prefix(text) == prefix


@pytest.mark.parametrize(
    "text", ["//", "//saccade", "/a//b", "/..", "/a/../b", "/.", "/a/.", "/a b", "/a%20b", "/ä", "/a?b", "/a#b", "\\a"]
)
def test_any_other_prefix_is_refused_with_an_example(text):
    for read in (parse_prefix, lambda text: ServeConfig(path_prefix=text)):
        with pytest.raises(UsageError, match=r"--path-prefix takes a path .*, as in /saccade; got "):
            read(text)


def test_a_server_beyond_loopback_knows_the_name_of_its_machine(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "Robot")
    assert {name.host for name in own_names("0.0.0.0")} == {"localhost", "0.0.0.0", "robot", "robot.local"}
    assert {name.host for name in own_names("::1")} == {"localhost", "::1"}
