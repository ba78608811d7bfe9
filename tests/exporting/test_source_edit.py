"""Lines of PyTorch rewritten: exactly the call that is meant, and nothing else in the file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from onnxlint.exporting.suggestions import CAT, FLATTEN, SCALE, VIEW, Suggestion, is_own

pytest.importorskip("libcst")

from onnxlint.exporting.source_edit import edited, unified


def change(source: str, kind: str, value: str = "", line: int = 1) -> str | None:
    one = Suggestion("f.py", line, kind, value, ("SHP001",), 1)
    after, made = edited(source.encode(), [one])
    assert bool(made) == (after != source.encode())
    return after.decode() if made else None


@pytest.mark.parametrize(
    ("line", "better"),
    [
        (
            "up = F.interpolate(x, size=y.shape[2:], mode='nearest')",
            "up = F.interpolate(x, scale_factor=2, mode='nearest')",
        ),
        ("up = F.interpolate(x, size = (h, w))  # why", "up = F.interpolate(x, scale_factor = 2)  # why"),
        ("up = F.interpolate(x, y.shape[2:])", "up = F.interpolate(x, scale_factor=2)"),
        ("up = interpolate(input=x, size=s)", "up = interpolate(input=x, scale_factor=2)"),
        ("größe = F.interpolate(x, size=s)", "größe = F.interpolate(x, scale_factor=2)"),
        ("up = F.interpolate(x, scale_factor=3)", None),
        ("up = F.interpolate(x, s, None, 'nearest')", None),
        ("up = F.interpolate(x, **options)", None),
        ("up = F.interpolate(x, *sizes)", None),
        ("a, b = F.interpolate(x, size=s), F.interpolate(y, size=t)", None),
        ("up = F.pad(x, size=s)", None),
    ],
)
def test_interpolate(line: str, better: str | None) -> None:
    assert change(line, SCALE, "2") == better


@pytest.mark.parametrize(
    ("line", "better"),
    [
        ("x = x.view(x.size(0), -1)", "x = x.flatten(1)"),
        ("x = self.pool(x).reshape(x.shape[0], -1)", "x = self.pool(x).flatten(1)"),
        ("return self.fc(x.view(x.size(0), -1))  # logits", "return self.fc(x.flatten(1))  # logits"),
        ("x = x.view(-1, 4)", None),
        ("x = x.view(x.size(0), -1, 4)", None),
        ("x = x.view(*sizes)", None),
        ("x = torch.reshape(x, (x.size(0), -1))", None),
    ],
)
def test_flatten(line: str, better: str | None) -> None:
    assert change(line, FLATTEN) == better


@pytest.mark.parametrize(
    ("line", "value", "better"),
    [
        ("y = out.view(out.shape[0], -1, 4)", "512", "y = out.view(-1, 512, 4)"),
        (
            "return out.view(out.size(0), -1, self.values)",
            "rank 4",
            "return out.view(-1, int(out.shape[1]) * int(out.shape[2]) * int(out.shape[3]) // self.values, self.values)",
        ),
        ("return f(out).view(out.size(0), -1, self.values)", "rank 4", None),
        ("y = out.view(-1, 4, 4)", "512", None),
        ("y = out.view(out.size(0), -1)", "512", None),
    ],
)
def test_view(line: str, value: str, better: str | None) -> None:
    assert change(line, VIEW, value) == better


FORWARD = """import torch


class Net(torch.nn.Module):
    def forward(self, x):
        f = lambda a: (a, a)
        return self.box(x), self.cls(x).softmax(-1)  # boxes, classes
"""


def test_heads_are_returned_as_one() -> None:
    after = change(FORWARD, CAT, "2", 5)
    assert after == FORWARD.replace(
        "return self.box(x), self.cls(x).softmax(-1)", "return torch.cat([self.box(x), self.cls(x).softmax(-1)], dim=2)"
    )
    assert change(FORWARD, CAT, "2", 4) is None
    assert change(FORWARD.replace("import torch\n", "import torch.nn as nn\n"), CAT, "2", 5) is None
    assert (
        change(
            FORWARD.replace("        f =", "        if x is None:\n            return x, x\n        f ="), CAT, "2", 5
        )
        is None
    )


def test_comments_line_ends_and_encodings_stay() -> None:
    text = (
        "# -*- coding: latin-1 -*-\r\nx = F.interpolate(  # größer\r\n    y,\r\n    size=z.shape[2:],  # wie z\r\n)\r\n"
    )
    source = text.encode("latin-1")
    after, made = edited(source, [Suggestion("f.py", 2, SCALE, "2", ("SHP001",), 1)])
    assert made
    assert after == source.replace(b"size=z.shape[2:]", b"scale_factor=2")


def test_several_changes_of_a_file() -> None:
    source = b"a = F.interpolate(x,\n    size=s)\nb = b.view(b.size(0), -1)\n"
    ones = [Suggestion("f.py", 1, SCALE, "2", ("SHP001",), 1), Suggestion("f.py", 3, FLATTEN, "", ("SHP006",), 1)]
    after, made = edited(source, ones)
    assert after == b"a = F.interpolate(x,\n    scale_factor=2)\nb = b.flatten(1)\n"
    assert made == tuple(ones)
    assert "+b = b.flatten(1)" in unified("f.py", source, after)


@pytest.mark.parametrize("source", [b"def (:\n", b"\xff\xfe\x00", b"", b"x = (" * 5000])
def test_what_is_no_python_is_left(source: bytes) -> None:
    assert edited(source, [Suggestion("f.py", 1, SCALE, "2", ("SHP001",), 1)]) == (source, ())


def test_only_files_of_the_user_are_changed(tmp_path: Path) -> None:
    own = tmp_path / "net.py"
    installed = tmp_path / "venv" / "lib" / "site-packages" / "timm.py"
    installed.parent.mkdir(parents=True)
    for path in (own, installed):
        path.touch()
    (tmp_path / "link.py").symlink_to(installed)
    assert is_own(str(own), [str(tmp_path)])
    assert not is_own(str(installed), [str(tmp_path)])
    assert not is_own(str(tmp_path / "link.py"), [str(tmp_path)])
    assert not is_own(str(own), [str(tmp_path / "elsewhere")])
    assert not is_own(str(tmp_path / "missing.py"), [str(tmp_path)])
    assert not is_own(str(Path(ast_file())), [sys.prefix, sys.base_prefix])


def ast_file() -> str:
    import ast

    return ast.__file__


@pytest.mark.parametrize(
    ("condition", "multiple", "holds"),
    [
        ("", None, True),
        ("H % 32 == 0 and W % 16 == 0", 32, True),
        ("H % 32 == 0", 16, False),
        ("H % 32 == 0", None, False),
        ("something else", 32, False),
    ],
)
def test_conditions(condition: str, multiple: int | None, holds: bool) -> None:
    assert Suggestion("f.py", 1, SCALE, "2", ("SHP001",), 1, condition).holds_for(multiple) is holds
