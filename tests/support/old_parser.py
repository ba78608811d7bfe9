"""Models as text for an onnx before 1.22, which reads no quoted sizes such as `float["N + 1"]`; the tests have them.

A quoted size is replaced by a plain word, and put back in the model.
"""

from __future__ import annotations

import re
from typing import Any

import onnx
import onnx.parser
from google.protobuf.message import Message

FIRST_WITH_QUOTED_SIZES = (1, 22)

_POSITION = re.compile(rb"\(line: (\d+) column: (\d+)\)")
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"\Z')
_parse_model = onnx.parser.parse_model


def parse_model(model_text: str) -> onnx.ModelProto:
    """What `onnx.parser.parse_model` of a newer onnx makes of a text.

    Raises:
        onnx.parser.ParseError: There is something else wrong with it.
    """
    changed, sizes = model_text.encode(), dict[str, str]()
    while True:
        try:
            proto = _parse_model(changed.decode())
        except onnx.parser.ParseError as error:
            size = _before_the_error(changed, error.args[0])
            if size is None:
                raise
            word = f"size_{len(sizes)}_"
            sizes[word] = re.sub(rb"\\(.)", rb"\1", size[1]).decode()
            changed = changed[: size.start()] + word.encode() + changed[size.end() :]
        else:
            _put_back(proto, sizes)
            return proto


def _before_the_error(text: bytes, error: bytes) -> re.Match[bytes] | None:
    """The size that the parser stopped behind; None if it stopped at something else."""
    position = _POSITION.search(error)
    if position is None or b"Integer value expected" not in error:
        return None
    line, column = map(int, position.groups())
    return _QUOTED.search(text, 0, sum(len(one) + 1 for one in text.split(b"\n")[: line - 1]) + column - 1)


def _put_back(message: Any, sizes: dict[str, str]) -> None:
    for field, value in message.ListFields():
        if field.name == "dim_param":
            message.dim_param = sizes.get(value, value)
        elif field.type == field.TYPE_MESSAGE:
            for one in (value,) if isinstance(value, Message) else value:
                _put_back(one, sizes)
