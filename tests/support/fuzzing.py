"""Broken models out of good ones, and runs of onnxlint over them that cannot take the tests down.

By hand, for as long as one likes: `python -m tests.support.fuzzing --seconds 600 --keep FOLDER MODELS...`
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import pickle
import random
import resource
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

SECONDS = 20
"""A check of a broken small model that takes longer hangs (the machine may be busy)."""

MEMORY = 1 << 30
"""Bytes of address space that it may take beside what the process has at the start."""

Mutation = tuple[int, int, int]
"""(what to do, where, with what): the same three numbers always do the same to a model."""


# Runs


@dataclass(frozen=True)
class Run:
    """How a call in a child process ended.

    Attributes:
        value: What it returned; None where it did not.
        problem: Empty where it returned; else where in Python it was, and what ended it.
        peak: Bytes of memory that it took at most, beside what the process had at the start.
        seconds: Wall time.
    """

    value: Any
    problem: str
    peak: int
    seconds: float


def in_child(call: Callable[[], Any], seconds: float = SECONDS, memory: int = MEMORY) -> Run:
    """Make a call in a forked child with bounded time and memory."""
    receive, send = os.pipe()
    stack = tempfile.TemporaryFile()  # noqa: SIM115 - closed below, with the child
    started = time.perf_counter()
    child = os.fork()
    if child == 0:
        _child(call, send, memory, stack.fileno())
    os.close(send)
    data = bytearray()
    hangs = False
    while True:
        ready, _, _ = select.select([receive], [], [], max(0.0, started + seconds - time.perf_counter()))
        if not ready:
            hangs = True
            os.kill(child, signal.SIGABRT)  # says where it is
            break
        piece = os.read(receive, 1 << 16)
        if not piece:
            break
        data += piece
    os.close(receive)
    _, status, usage = os.wait4(child, 0)
    took = time.perf_counter() - started
    if os.WIFSIGNALED(status):
        with stack:
            stack.seek(0)
            *_, where = stack.read().decode().split("Fatal")  # those before are of children that it survived
        what = f"not done after {seconds:g} s" if hangs else f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
        return Run(None, f"{where}\n{what}", 0, took)
    stack.close()
    value, problem, before = pickle.loads(bytes(data))
    return Run(value, problem, usage.ru_maxrss * 1024 - before, took)


def _child(call: Callable[[], Any], send: int, memory: int, stack: int) -> None:
    import faulthandler
    import traceback

    try:
        faulthandler.enable(stack, all_threads=False)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = Path("/proc/self/statm").read_text().split()
        before = int(pages[1]) * resource.getpagesize()
        limit = int(pages[0]) * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        value, problem = None, ""
        try:
            value = call()
        except BaseException:  # noqa: BLE001 - handed to the parent, which judges
            problem = traceback.format_exc()
        with os.fdopen(send, "wb") as pipe:
            pipe.write(pickle.dumps((value, problem, before)))
    finally:
        os._exit(0)


def check_problem(path: str | Path, *options: str) -> str:
    """What is wrong with how `onnxlint check` takes a model; empty where nothing is."""
    words = ["check", str(path), "--isolated", "--format", "json", "--quiet", *options]
    run = in_child(lambda: _command_line(words))
    if run.problem:
        return run.problem
    code, out, err = run.value
    if "Traceback" in err or code not in (0, 1, 2):
        return f"exit code {code}\n{err}"
    document = json.loads(out) if out else {}
    errors = document.get("errors", [])
    lines = err.splitlines()
    if code == 2 and len(lines) != 1:
        return f"{len(lines)} lines for one error:\n{err}"
    if code != 2 and lines:
        return f"exit code {code}, but:\n{err}"
    if "please report" in err or "killed the worker" in err or "out of memory" in err:
        return str(err)
    if (code == 2) != bool(errors):
        return f"exit code {code}, but errors {errors}"
    return f"took {run.peak >> 20} MiB" if run.peak > MEMORY else ""


def _command_line(words: Sequence[str]) -> tuple[int, str, str]:
    from onnxlint.cli.app import run

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(words)
    return code, out.getvalue(), err.getvalue()


def fix_problem(path: str | Path) -> str:
    """What is wrong with how a fix without verification takes a model; empty where nothing is."""
    run = in_child(lambda: _fix(str(path)))
    if run.problem:
        return run.problem
    failed = [why for why in run.value if "please report" in why]
    return "\n".join(failed) or (f"took {run.peak >> 20} MiB" if run.peak > MEMORY else "")


def _fix(path: str) -> list[str]:
    """Reasons why findings were left; the error, where there is one."""
    from onnxlint.errors import OnnxlintError
    from onnxlint.fixes.engine import fix_model
    from onnxlint.lint.engine import Plan
    from onnxlint.lint.registry import load_registry
    from onnxlint.lint.rule import Request
    from onnxlint.model.save import to_bytes
    from onnxlint.model.skeleton import open_model

    rules = tuple(rule for rule in load_registry() if rule.default and not rule.targets and not rule.needs_weights)
    request = Request(unsafe=True, drop_output_activations=True, multiples=(("H", 32), ("W", 32)))
    try:
        model = open_model(path)
        proto, report = fix_model(model, Plan(rules), request)
        to_bytes(model, proto)
    except OnnxlintError as error:
        if "\n" in str(error):
            raise AssertionError("an error of more than one line") from error
        return [str(error)]
    return [left.why for left in report.left]


# Mutations of bytes

LIES = (0, 1, 0x7F, 0x80, 0xFFFF, 2**31 - 1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1)


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def mutated_bytes(data: bytes, other: bytes, mutations: Iterable[Mutation]) -> bytes:
    """A copy with bytes flipped, cut out, cut off, doubled, overwritten by varints that lie, or taken from `other`."""
    changed = bytearray(data)
    for kind, where, what in mutations:
        place = where % (len(changed) + 1)
        near = place % 400  # headers are at the start: half of all hits go there
        if where & 1:
            place = near
        length = 1 + what % 64
        match kind % 8:
            case 0 if changed:
                changed[min(place, len(changed) - 1)] ^= 1 << what % 8
            case 1:
                del changed[place:]
            case 2:
                del changed[place : place + length]
            case 3:
                changed[place:place] = changed[place : place + length]
            case 4:
                lie = varint(LIES[what % len(LIES)])
                changed[place : place + len(lie)] = lie
            case 5:
                changed[place:place] = varint(LIES[what % len(LIES)])
            case 6:
                start = what % max(len(other), 1)
                changed[place : place + length] = other[start : start + length]
            case _:
                changed[place:place] = what.to_bytes(8, "little")[: 1 + what % 8]
    return bytes(changed)


TOKENS = (
    *"<>(){}[],=:;\"'@.-\\",
    "float[N]",
    "float",
    "int64",
    "seq(float)",
    "optional(float)",
    '"" : 99999999999999',
    "9" * 40,
    "1e999",
    "-1",
    "\0",
    "\x1b[31m",
    "é",
    "if",
    "Shape",
    "ir_version",
    "{" * 200,
    "(" * 200,
)


def mutated_text(text: str, mutations: Iterable[Mutation]) -> str:
    """Textual ONNX with pieces dropped, doubled, swapped or put in."""
    for kind, where, what in mutations:
        place = where % (len(text) + 1)
        end = place + 1 + what % 30
        match kind % 4:
            case 0:
                text = text[:place] + text[end:]
            case 1:
                text = text[:end] + text[place:end] + text[end:]
            case 2:
                text = text[:place] + TOKENS[what % len(TOKENS)] + text[place:]
            case _:
                start = what % (len(text) + 1)
                text = text[:place] + text[start : start + end - place] + text[end:]
    return text


# Mutations of messages


def mutated_model(proto: onnx.ModelProto, mutations: Iterable[Mutation]) -> onnx.ModelProto:
    """A copy in which messages have fields dropped, doubled, renamed, swapped, or set to anything of their type."""
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    for kind, where, what in mutations:
        found = list(_messages(model))
        # Nodes are what most of the code is about: half of all changes go to them and what they hold.
        some = [m for m in found if m.DESCRIPTOR.name in ("NodeProto", "AttributeProto")] if where & 1 else found
        message = (some or found)[where // 2 % len(some or found)]
        fields = [field for field in message.DESCRIPTOR.fields if kind % 3 or _is_set(message, field)]
        if fields:
            _change(model, message, fields[what % len(fields)], kind // 3, what // 64)
    return model


def _messages(top: Any) -> Iterable[Any]:
    pending = [top]
    while pending:
        message = pending.pop()
        yield message
        for field, value in message.ListFields():
            if field.message_type is not None:
                pending.extend(value if _is_repeated(field) else [value])


def _is_repeated(field: Any) -> bool:
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)


def _is_set(message: Any, field: Any) -> bool:
    return len(getattr(message, field.name)) > 0 if _is_repeated(field) else message.HasField(field.name)


NUMBERS = (0, 1, -1, 2, 3, 7, 64, 2**15, 2**31 - 1, -(2**31), 2**31, 2**40, 2**63 - 1, -(2**63))


def _change(model: onnx.ModelProto, message: Any, field: Any, how: int, what: int) -> None:
    name = field.name
    if not _is_repeated(field):
        if how % 3 == 0:
            message.ClearField(name)
        elif field.message_type is not None:
            _fill(model, getattr(message, name), what)
        else:
            _set(message, field, _value(model, field, what))
        return
    values = getattr(message, name)
    place = what % (len(values) + 1)
    if field.message_type is not None:
        match how % 4:
            case 0 if values:
                del values[min(place, len(values) - 1)]
            case 1 if values:
                values.add().CopyFrom(values[min(place, len(values) - 1)])
            case 2 if len(values) > 1:
                kept = [type(value).FromString(value.SerializePartialToString()) for value in values]
                kept.append(kept.pop(min(place, len(kept) - 1)))
                message.ClearField(name)
                values.extend(kept)
            case _:
                _fill(model, values.add(), what)
        return
    kept = list(values)
    match how % 4:
        case 0 if kept:
            del kept[min(place, len(kept) - 1)]
        case 1 if kept:
            kept.insert(place, kept[min(place, len(kept) - 1)])
        case 2 if kept:
            kept[min(place, len(kept) - 1)] = _value(model, field, what)
        case _:
            kept.insert(place, _value(model, field, what))
    message.ClearField(name)
    with contextlib.suppress(ValueError, TypeError):  # a number that the field cannot hold
        getattr(message, name).extend(kept)


def _fill(model: onnx.ModelProto, message: Any, what: int) -> None:
    """Make a message a copy of another one of its type, in the model: cycles and names used twice come of it."""
    alike = [other for other in _messages(model) if other.DESCRIPTOR is message.DESCRIPTOR and other is not message]
    if alike:
        copy = type(message)()
        copy.CopyFrom(alike[what % len(alike)])
        if copy.ByteSize() < 100_000:
            message.CopyFrom(copy)


def _value(model: onnx.ModelProto, field: Any, what: int) -> Any:
    if field.type == field.TYPE_STRING:
        texts = ["", "x", "é" * 50, "\x1b[31m\n", "a/b.c", "-1", "99999999999999999999", "0", "../../etc/passwd"]
        for message in _messages(model):
            if message.DESCRIPTOR.name == "NodeProto":
                texts += [*message.input, *message.output, message.op_type, message.domain]
            if message.DESCRIPTOR.name in ("AttributeProto", "TensorProto", "ValueInfoProto"):
                texts.append(message.name)
        return texts[what % len(texts)]
    if field.type == field.TYPE_BYTES:
        return (b"", b"\xff\xfe", b"nearest", b"asymmetric", b"\0" * 64, b"x" * 5000)[what % 6]
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return (0.0, 1.0, -1.0, 0.5, float("nan"), float("inf"), 1e38, 1e-45)[what % 8]
    if field.type == field.TYPE_ENUM:
        values = [value.number for value in field.enum_type.values]
        return values[what % len(values)]
    return NUMBERS[what % len(NUMBERS)]


def _set(message: Any, field: Any, value: Any) -> None:
    with contextlib.suppress(ValueError, TypeError):  # a number that the field cannot hold
        setattr(message, field.name, value)


# By hand


def random_mutations(source: random.Random, most: int) -> list[Mutation]:
    return [
        (source.getrandbits(16), source.getrandbits(31), source.getrandbits(31)) for _ in range(source.randint(1, most))
    ]


def main() -> None:
    """Mutate the given models until the time is over, and keep those that onnxlint does not take well."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--keep", type=Path, default=Path("fuzzed"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fix", type=float, default=0.3, help="part of the runs that fix")
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    source = random.Random(options.seed)
    warm_up()
    texts = {path: path.read_bytes() for path in options.models}
    paths = list(texts)
    end, runs, known = time.monotonic() + options.seconds, 0, dict[str, int]()
    while time.monotonic() < end:
        path = source.choice(paths)
        data = texts[path]
        if source.random() < 0.75:
            mutations = random_mutations(source, 6)
            data = mutated_model(onnx.ModelProto.FromString(data), mutations).SerializePartialToString()
        else:
            data = mutated_bytes(data, texts[source.choice(paths)], random_mutations(source, 4))
        broken = options.keep / f"now_{os.getpid()}.onnx"
        broken.write_bytes(data)
        runs += 1
        fixes = source.random() < options.fix
        problem = fix_problem(broken) if fixes else check_problem(broken, *EVERYTHING)
        if problem:
            lines = problem.strip().splitlines()
            frames = [line for line in lines if "/onnxlint" in line and "line" in line]
            place = (frames or [""])[0 if "most recent call first" in problem else -1]
            key = f"{'fix' if fixes else 'check'} {place.strip()} {lines[-1].split(': ', 2)[-1][:160]}"
            known[key] = known.get(key, 0) + 1
            if known[key] == 1:
                kept = options.keep / f"{len(known):03}_{path.stem[:40]}.onnx"
                broken.replace(kept)
                kept.with_suffix(".txt").write_text(f"{path}\n{problem}\n")
                sys.stdout.write(f"{kept}: {key}\n")
                sys.stdout.flush()
    sys.stdout.write(f"{runs} runs, {sum(known.values())} problems of {len(known)} kinds\n")


EVERYTHING = ("--select", "ALL", "--weights", "--target", "ncnn,tensorrt,onnxruntime,coreml,openvino,qnn,nnapi,tflite")


def warm_up() -> None:
    """Import what checks and fixes need, once for all children."""
    import onnx_graphsurgeon
    import sympy
    from onnx import checker, helper, numpy_helper, reference, shape_inference, version_converter

    import onnxlint.cli.check
    import onnxlint.fixes.engine
    import onnxlint.lint.engine
    import onnxlint.model.save
    import onnxlint.symbolic.inference
    from onnxlint.lint.registry import load_registry
    from onnxlint.report.check import json as json_report

    load_registry()
    _ = (onnx_graphsurgeon, sympy, checker, helper, numpy_helper, reference, shape_inference, version_converter)
    _ = (json_report, onnxlint.check)


if __name__ == "__main__":
    main()
