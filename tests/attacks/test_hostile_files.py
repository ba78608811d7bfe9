"""Every file that a command reads may be something else: a pipe, a device, an endless or a broken file, one with a name or
a text that a terminal obeys. One clear line each, in bounded time; `-m slow` tries every kind in every place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from onnxlint.backends.ncnn.format import parse_bin, parse_param
from onnxlint.backends.ncnn.format import save as save_net
from onnxlint.model import reading
from tests.attacks.test_hostile_models import problem
from tests.support.command import CLEAN, onnxlint, save
from tests.support.fuzzing import warm_up

FORGED = "\x1b[31mred\x1b]0;title\x07\n::error::forged\r\u202e"
"""What must reach no terminal as it is."""

MEMORY = 6 << 30
"""Address space of a command and, each, of the processes that it starts: onnxruntime alone reserves one or two gigabytes."""

TEXT = """
<ir_version: 8, opset_import: ["": 17]>
net (float[1,3,8,8] image) => (float[1,3,8,8] features) { features = Relu (image) }
"""

PARAM = "7767517\n2 2\nInput in 0 1 in\nInnerProduct dense 1 1 in out 0=2 1=0 2=8\n"


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    warm_up()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Good files, so that a command gets as far as the bad one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reading, "WRITER_SECONDS", 0.1)
    save(tmp_path / "good.onnx", TEXT)
    save(tmp_path / "free.onnx", CLEAN)
    (tmp_path / "pictures").mkdir()
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"pictures/{i}.png")
    save_net(parse_bin(parse_param(PARAM), bytes(4) + bytes(32)), tmp_path / "net.param")
    (tmp_path / "net.table").write_text("dense_param_0 1 1\ndense 1\n")
    (tmp_path / "labels.txt").write_text("0.png 0\n1.png 0\n")
    (tmp_path / "out").mkdir()
    return tmp_path


COMPARE = ("compare", "good.onnx", "good.onnx", "--no-latency", "--mean", "0,0,0")
PLACES: dict[str, tuple[str, tuple[str, ...]]] = {
    "check": ("bad.onnx", ("check", "bad.onnx", "--isolated")),
    "check text": ("bad.onnxtxt", ("check", "bad.onnxtxt", "--isolated")),
    "check json": ("bad.json", ("check", "bad.json", "--isolated")),
    "fix": ("bad.onnx", ("fix", "bad.onnx", "-o", "out/x.onnx", "--isolated")),
    "convert": ("bad.onnx", ("convert", "bad.onnx", "--to", "onnx-fp16", "--out-dir", "out")),
    "compare with": ("bad.onnx", ("compare", "bad.onnx", "good.onnx", "--no-latency")),
    "compare": ("bad.onnx", ("compare", "good.onnx", "bad.onnx", "--no-latency")),
    "compare param": ("bad.param", ("compare", "good.onnx", "bad.param", "--no-latency")),
    "compare bin": ("net.bin", ("compare", "good.onnx", "net.param", "--no-latency")),
    "deploy": ("bad.onnx", ("deploy", "bad.onnx", "--to", "onnx-fp16", "--out-dir", "out")),
    "diff with": ("bad.onnx", ("diff", "bad.onnx", "good.onnx")),
    "diff": ("bad.onnx", ("diff", "good.onnx", "bad.onnx")),
    "show": ("bad.onnx", ("show", "bad.onnx")),
    "heads": ("bad.onnx", ("heads", "bad.onnx")),
    "config": ("bad.onnx", ("config", "bad.onnx")),
    "configuration": ("bad.toml", ("check", "good.onnx", "--config", "bad.toml")),
    "configuration beside": ("onnxlint.toml", ("check", "good.onnx")),
    "project": ("pyproject.toml", ("check", "good.onnx")),
    "baseline": ("bad.json", ("check", "good.onnx", "--isolated", "--baseline", "bad.json")),
    "inputs": ("bad.npz", ("fix", "free.onnx", "-o", "out/x.onnx", "--isolated", "--inputs", "bad.npz")),
    "images": ("bad.png", (*COMPARE, "--images", "bad.png")),
    "arrays": ("bad.npy", (*COMPARE, "--images", "bad.npy")),
    "list": ("bad.txt", (*COMPARE, "--images", "bad.txt")),
    "labels": ("bad.txt", (*COMPARE, "--images", "pictures", "--task", "classification", "--labels", "bad.txt")),
    "boxes": ("bad.json", (*COMPARE, "--images", "pictures", "--task", "detection", "--labels", "bad.json")),
    "manifest": ("bad.onnxlint.json", ("convert", "--manifest", "bad.onnxlint.json")),
    "manifest beside": ("bad.onnxlint.json", COMPARE),
    "record": (
        "out/deploy.json",
        ("deploy", "good.onnx", "--to", "onnx-fp16", "--out-dir", "out", "--resume", "--isolated"),
    ),
    "comment": ("bad.json", ("bot", "--post", "bad.json")),
    "table net": ("bad.param", ("ncnn", "table", "bad.param", "net.bin", "pictures", "out/t.table")),
    "quantize": ("bad.param", ("ncnn", "quantize", "bad.param", "net.bin", "o.param", "o.bin", "net.table")),
    "quantize bin": ("bad.bin", ("ncnn", "quantize", "net.param", "bad.bin", "o.param", "o.bin", "net.table")),
    "quantize table": ("bad.table", ("ncnn", "quantize", "net.param", "net.bin", "o.param", "o.bin", "bad.table")),
}
"""Place → the file there, and a command that reads it."""


def linked(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def holding(data: bytes) -> Callable[[Path], None]:
    return lambda path: void(path.write_bytes(data))


def void(_: object) -> None:
    return None


def endless(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(3 << 30)


def picture(path: Path) -> None:
    """100 million pixels in some kilobytes."""
    Image.MAX_IMAGE_PIXELS = None
    Image.new("1", (1 << 14, 1 << 14)).save(path, "PNG")


KINDS: dict[str, Callable[[Path], None]] = {
    "pipe": lambda path: os.mkfifo(path),
    "zeros without end": linked("/dev/zero"),
    "random bytes without end": linked("/dev/urandom"),
    "terminal": linked("/dev/tty"),
    "folder": lambda path: path.mkdir(),
    "link to nowhere": linked("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "three gigabytes of zeros": endless,
    "nothing": holding(b""),
    "a byte": holding(b"\0"),
    "noise": holding(bytes(range(256)) * 50),
    "brackets": holding(b"[" * 200_000),
    "objects": holding(b'{"a":' * 100_000),
    "digits": holding(b"9" * 100_000),
    "a number": holding(b"1e999999999"),
    "escapes": holding(FORGED.encode() * 10),
    "escapes in a text": holding(f'x = "{FORGED}"\n{FORGED} = 1\n'.encode()),
    "escapes in JSON": holding(b'{"\\u001b[31m": ["\\u001b]0;x\\u0007", {"\\n::error::forged": 1}]}'),
    "no UTF-8": holding(b"\xff\xfe\xfd name\n" * 20),
    "half a character": holding("é".encode()[:1] * 100),
    "zip": holding(b"PK\x03\x04" + bytes(3000)),
    "a picture of too many pixels": picture,
    "a program of PostScript": holding(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"),
    "ncnn without layers": holding(b"7767517\n999999999 999999999\n"),
    "ncnn with a layer of escapes": holding(f"7767517\n1 1\n\x1b[31m{FORGED!r} x 0 1 y\n".encode()),
}


def trouble(folder: Path, place: str, kind: str) -> str:
    name, words = PLACES[place]
    path = folder / name
    path.unlink(missing_ok=True)
    KINDS[kind](path)
    found = problem(*words, cpu=15, memory=MEMORY)
    left = [left.name for left in folder.rglob(".onnxlint-*")]
    return found or (f"left {left}" if left else "")


@pytest.mark.parametrize("place", PLACES)
def test_some_kinds_in_every_place(here: Path, place: str) -> None:
    number = list(PLACES).index(place)
    assert trouble(here, place, list(KINDS)[number % len(KINDS)]) == ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_every_kind_in_every_place(here: Path, place: str, kind: str) -> None:
    assert trouble(here, place, kind) == ""


NAMES = {
    "no UTF-8": b"caf\xe9",
    "escapes": b"\x1b[31mred\x1b]0;title\x07",
    "lines": b"a\n::error::forged\rb",
    "a dash": b"-dash",
    "bidi": "a\u202eb".encode(),
    "format": b"%s%n{0}{x.__class__}",
    "markup": b"<script>`**](x)",
    "spaces": b" a b ",
    "long": b"n" * 240,
}
COMMANDS = {
    "check": ("check", "MODEL", "--isolated"),
    "check json": ("check", "MODEL", "--isolated", "--format", "github"),
    "fix": ("fix", "MODEL", "-o", "out/x.onnx", "--isolated"),
    "fix to it": ("fix", "good.onnx", "-o", "OTHER", "--isolated"),
    "fix beside it": ("fix", "good.onnx", "-o", "OTHER", "--external-data", "NAME.data", "--isolated"),
    "convert": ("convert", "MODEL", "--to", "onnx-fp16", "--out-dir", "out"),
    "compare": ("compare", "MODEL", "MODEL", "--no-latency"),
    "deploy": ("deploy", "MODEL", "--to", "onnx-fp16", "--out-dir", "out", "--isolated"),
    "diff": ("diff", "MODEL", "good.onnx"),
    "show": ("show", "MODEL"),
    "heads": ("heads", "MODEL"),
    "config": ("config", "MODEL"),
    "report": ("check", "good.onnx", "--isolated", "-o", "OTHER.txt"),
    "missing": ("check", "MISSING"),
    "images": (*COMPARE, "--images", "FOLDER"),
    "inputs": ("fix", "free.onnx", "-o", "out/x.onnx", "--isolated", "--inputs", "MISSING"),
    "configuration": ("check", "good.onnx", "--config", "MISSING"),
    "table": ("ncnn", "table", "MISSING", "net.bin", "pictures", "out/t.table"),
    "targets": ("convert", "good.onnx", "--to", "NAME"),
    "rule": ("rule", "NAME"),
    "select": ("check", "good.onnx", "--select", "NAME"),
    "keep": ("convert", "good.onnx", "--to", "onnx-fp16", "--keep", "NAME", "--out-dir", "out"),
    "rename": ("fix", "good.onnx", "-o", "out/x.onnx", "--rename", "features=NAME", "--isolated"),
    "option": ("check", "good.onnx", "--NAME"),
}
SOME = ("check", "fix to it", "missing", "select", "targets")


def named(folder: Path, words: tuple[str, ...], name: bytes) -> str:
    text = os.fsdecode(name)
    places = {
        "MODEL": f"./{text}.onnx",
        "OTHER": f"out/{text}.onnx",
        "MISSING": f"./{text}.gone",
        "FOLDER": f"./{text}",
    }
    (folder / "good.onnx").read_bytes()
    (folder / f"{text}.onnx").write_bytes((folder / "good.onnx").read_bytes())
    (folder / text).mkdir()
    for i in range(2):
        data = (folder / "pictures/0.png").read_bytes() if i else b"no picture"
        (folder / text / f"{text[:200]}{i}.png").write_bytes(data)
    filled = []
    for word in words:
        for key, value in places.items():
            word = word.replace(key, value)
        filled.append(word.replace("NAME", text))
    return problem(*filled, cpu=30, memory=MEMORY)


@pytest.mark.parametrize("name", NAMES)
def test_names_in_some_commands(here: Path, name: str) -> None:
    command = SOME[list(NAMES).index(name) % len(SOME)]
    assert named(here, COMMANDS[command], NAMES[name]) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", COMMANDS)
def test_names_in_every_command(here: Path, command: str, name: str) -> None:
    assert named(here, COMMANDS[command], NAMES[name]) == ""


def test_a_program_is_no_picture(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands PostScript to Ghostscript, whatever the file is called."""
    from onnxlint.images.recipe import decode

    (here / "gs").write_text("#!/bin/sh\ntouch ran\n")
    (here / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{here}{os.pathsep}{os.environ['PATH']}")
    KINDS["a program of PostScript"](here / "x.png")
    with pytest.raises(OSError, match="cannot identify image"):
        decode(str(here / "x.png"))
    assert not (here / "ran").exists()


@pytest.mark.parametrize("kind", ["pipe", "zeros without end", "folder", "link to itself", "nothing"])
def test_what_cannot_be_viewed(here: Path, kind: str) -> None:
    KINDS[kind](here / "bad.param")
    assert problem("view", "bad.param") == ""


FAULTS = {
    "past its end": {"location": "w.bin", "offset": "100000"},
    "negative": {"location": "w.bin", "offset": "-5"},
    "no number": {"location": "w.bin", "length": "9" * 5000},
    "another length": {"location": "w.bin", "length": "3"},
    "absolute": {"location": "/etc/passwd"},
    "outside": {"location": "../w.bin"},
    "a null byte": {"location": "w.bin\0x"},
    "a folder": {"location": "w.bin/"},
    "escapes": {"location": FORGED},
    "the model": {"location": "outer.onnx"},
    "nowhere": {},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_data_that_is_not_there(here: Path, fault: str) -> None:
    """Whatever runs the model, onnxlint says what is wrong with its external data, before anything is written."""
    proto = onnx.parser.parse_model(TEXT.replace("Relu (image)", "Add (image, w)"))
    tensor = proto.graph.initializer.add(name="w", data_type=1, dims=[1, 3, 8, 8], data_location=1)
    for key, value in FAULTS[fault].items():
        tensor.external_data.add(key=key, value=value)
    (here / "w.bin").write_bytes(bytes(768))
    (here / "outer.onnx").write_bytes(proto.SerializeToString())
    for words in (
        ("convert", "outer.onnx", "--to", "onnx-fp16", "--out-dir", "out"),
        ("compare", "good.onnx", "outer.onnx", "--no-latency"),
        ("deploy", "outer.onnx", "--to", "onnx-fp16", "--out-dir", "out", "--isolated"),
    ):
        ran = onnxlint(*words)
        assert ran.code == 2
        assert ran.err.startswith("error: outer.onnx: tensor 'w': "), ran.err
        assert ran.err.count("\n") == 1
        assert list((here / "out").iterdir()) == []


def test_data_that_is_no_file(here: Path) -> None:
    """External data, as a model names it."""
    proto = onnx.parser.parse_model(TEXT.replace("Relu (image)", "Add (image, w)"))
    tensor = proto.graph.initializer.add(name="w", data_type=1, dims=[1, 3, 8, 8], data_location=1)
    tensor.external_data.add(key="location", value="bad.bin")
    (here / "outer.onnx").write_bytes(proto.SerializeToString())
    for kind in ("pipe", "zeros without end", "folder", "link to nowhere", "link to itself", "nothing"):
        (here / "bad.bin").unlink(missing_ok=True)
        KINDS[kind](here / "bad.bin")
        for words in (("check", "outer.onnx", "--isolated"), ("fix", "outer.onnx", "-o", "out/x.onnx", "--isolated")):
            assert problem(*words, memory=MEMORY) == "", kind
        if kind == "folder":
            (here / "bad.bin").rmdir()
