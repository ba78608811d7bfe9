"""Run native code on untrusted files, without trusting it with this process: onnx's shape inference, checker and parser.

onnx's shape inference aborts on some malformed models (an assertion of the C++ library, a wild index), and takes memory
and time without bound on others. In a forked child with limits, that ends the child, and the check goes on. One child
serves all models; a new one takes its place when it has died or grown. Where there is no fork (Windows), the calls are
made in this process, without limits.
"""

from __future__ import annotations

import gc
import json
import os
import select
import struct
import threading
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from onnxlint.model.limits import die_with_parent
from onnxlint.model.messages import extension, messages
from onnxlint.text import size as shown_size

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 2.0
"""CPU time that a call may take, beside `SECONDS_PER_BYTE` for its data."""

SECONDS_PER_BYTE = 5e-6

MEMORY = 256 << 20
"""Bytes that a call may allocate, beside `MEMORY_PER_BYTE` for its data."""

MEMORY_PER_BYTE = 50

GROWN = 64 << 20
"""Bytes that a child may have grown by before it is replaced: memory that it once had is not given back."""

_WAIT = 10
"""Wall time that a call may take, as a multiple of its CPU time: the machine may be busy."""


class Crashed(RuntimeError):  # noqa: N818 - what happened to the child
    """The child did not survive the call: it was killed by a signal."""


class OutOfLimits(Crashed):
    """The call took more time or memory than it may."""


class Limits(NamedTuple):
    """What one call may take.

    Attributes:
        seconds: CPU time.
        memory: Bytes, beside what the process has when the call begins.
    """

    seconds: float = SECONDS
    memory: int = MEMORY

    @classmethod
    def of(cls, count: int) -> Limits:
        """Limits that fit so many bytes of data."""
        return cls(SECONDS + SECONDS_PER_BYTE * count, MEMORY + MEMORY_PER_BYTE * count)


def infer_shapes(data: bytes, *, check_type: bool = True, strict: bool = True, data_prop: bool = True) -> bytes:
    """onnx's shape inference on a serialized model, in a child that serves all models.

    Args:
        data: The model.
        check_type, strict, data_prop: As for `onnx.shape_inference.infer_shapes`.

    Returns:
        The model with inferred shapes, serialized.

    Raises:
        OutOfLimits: It takes too much time or memory.
        Crashed: The child did not survive it.
        RuntimeError: Inference refuses the model; the message is onnx's.
    """
    return _ask(check_type | strict << 1 | data_prop << 2, data)


def run_checker(data: bytes) -> None:
    """onnx's checker on a serialized model, in the same child.

    Raises:
        OutOfLimits, Crashed: As for `infer_shapes`.
        RuntimeError: The checker refuses the model; the message is onnx's.
    """
    _ask(_CHECK, data)


def run_node_checker(data: bytes) -> dict[int, str]:
    """onnx's checker on the nodes of a serialized model, each alone, in the same child: index → why it is refused.

    Raises:
        OutOfLimits, Crashed: As for `infer_shapes`.
    """
    return {int(index): said for index, said in json.loads(_ask(_CHECK_NODES, data)).items()}


def read_schemas(request: bytes) -> bytes:
    """Schemas of operators, read in the same child: see `describe_schemas`.

    Raises:
        OutOfLimits, Crashed: As for `infer_shapes`.
    """
    return _ask(_SCHEMAS, request)


def _ask(what: int, data: bytes) -> bytes:
    if not hasattr(os, "fork"):
        import onnx  # noqa: F401 - whole: this process may go on to use it

        return _answered(what, data)
    with _server.lock:
        return _server.ask(what, data)


def in_child(call: Callable[[], bytes], limits: Limits | None = None) -> bytes:
    """The result of a call made in a forked child of its own; made here where there is no fork.

    Raises:
        OutOfLimits: It took too much time or memory.
        Crashed: The child did not survive it.
        RuntimeError: The call raised; the message is the original's.
    """
    if not hasattr(os, "fork"):
        try:
            return call()
        except Exception as error:
            raise RuntimeError(str(error)) from error
    limits = limits or Limits()
    child = _Child(lambda: iter([(limits, call)]))
    try:
        return child.answer(limits)
    finally:
        child.end()


_CHECK, _CHECK_NODES, _SCHEMAS = 8, 16, 32
"""Requests for the checker and for schemas; smaller numbers are flags of shape inference."""


def _answered(what: int, data: bytes) -> bytes:
    if what == _CHECK:
        return _check(data)
    if what == _SCHEMAS:
        return describe_schemas(data)
    return _check_nodes(data) if what == _CHECK_NODES else _infer(what, data)


def _check(data: bytes) -> bytes:
    try:
        extension().checker.check_model(data, False, False, False)
    except Exception as error:
        raise RuntimeError(str(error) or "onnx.checker refuses the model without saying why") from error
    return b""


def _check_nodes(data: bytes) -> bytes:
    checker = extension().checker
    model = messages().ModelProto.FromString(data)
    context = checker.CheckerContext()
    found: dict[int, str] = {}
    try:
        context.ir_version = model.ir_version
        context.opset_imports = {entry.domain: entry.version for entry in model.opset_import}
    except (TypeError, ValueError):
        return b"{}"  # versions that are no versions
    for i, node in enumerate(model.graph.node):
        try:
            checker.check_node(node.SerializeToString(), context, checker.LexicalScopeContext())
        except Exception as error:  # noqa: BLE001 - a class of the extension, and what else it raises
            found[i] = str(error)
    return json.dumps(found).encode()


def describe_schemas(request: bytes) -> bytes:
    """What onnx's schemas say about operators.

    Args:
        request: JSON: a list of [operator, domain, version of the domain; 0: the newest].

    Returns:
        JSON: the newest version of ONNX's own domain, and for each operator null or [since, deprecated, types of inputs,
        whether the last of them repeats, {name of a type: types that it may stand for}].
    """
    defs = extension().defs
    found: list[object] = []
    for op, domain, version in json.loads(request):
        if not (defs.has_schema(op, version, domain) if version else defs.has_schema(op, domain)):
            found.append(None)
            continue
        schema = defs.get_schema(op, version, domain) if version else defs.get_schema(op, domain)
        inputs = list(schema.inputs)
        repeats = bool(inputs) and inputs[-1].option == defs.OpSchema.FormalParameterOption.Variadic
        if repeats and not inputs[-1].is_homogeneous:
            inputs.pop()
            repeats = False
        allowed = {entry.type_param_str: list(entry.allowed_type_strs) for entry in schema.type_constraints}
        types = [one.type_str for one in inputs]
        found.append([schema.since_version, schema.deprecated, types, repeats, allowed])
    return json.dumps([defs.schema_version_map()[""][1], found]).encode()


def _infer(flags: int, data: bytes) -> bytes:
    try:
        answer: bytes = extension().shape_inference.infer_shapes(
            data, check_type=bool(flags & 1), strict_mode=bool(flags & 2), data_prop=bool(flags & 4)
        )
    except Exception as error:
        raise RuntimeError(str(error)) from error
    return answer


# The child

_REQUEST = struct.Struct("<BQ")  # what to do, bytes of the model
_ANSWER = struct.Struct("<cQ")  # kind, bytes that follow
_DONE, _RAISED, _NO_MEMORY = b"+", b"-", b"m"
_NO_LAST_WORDS = 97
"""Exit code of a child that had not even the memory to say that there is too little."""

_Calls = Callable[[], "Iterator[tuple[Limits, Callable[[], bytes]]]"]


class _Child:
    """A forked process that makes calls and writes their results to a pipe.

    Args:
        calls: Called in the child; yields what to call, and within which limits.
        request: The reading end of a pipe for requests, kept open in the child.
    """

    def __init__(self, calls: _Calls, request: int = -1) -> None:
        self._receive, send = _pipe()
        self.died = False
        with warnings.catch_warnings():
            # The child calls one C++ function at a time: locks that other threads hold here do not matter to it.
            warnings.simplefilter("ignore", DeprecationWarning)
            parent = os.getpid()
            self.process = os.fork()
        if self.process == 0:
            _serve(calls, send, {send, request}, parent)
        os.close(send)

    def answer(self, limits: Limits) -> bytes:
        """Wait for the next result.

        Raises:
            OutOfLimits, Crashed, RuntimeError: See `in_child`.
        """
        end = time.monotonic() + _WAIT * (limits.seconds + 1)
        kind, length = _ANSWER.unpack(self._read(_ANSWER.size, end, limits))
        data = self._read(length, end, limits)
        if kind == _NO_MEMORY:
            raise OutOfLimits(_too_much_memory(limits))
        if kind == _RAISED:
            raise RuntimeError(data.decode("utf-8", "replace"))
        return data

    def _read(self, count: int, end: float, limits: Limits) -> bytes:
        pieces = []
        while count:
            ready, _, _ = select.select([self._receive], [], [], max(0.0, end - time.monotonic()))
            piece = os.read(self._receive, min(count, _PIPE)) if ready else b""
            if not piece:
                self._explain(hangs=not ready, limits=limits)
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def _explain(self, hangs: bool, limits: Limits) -> NoReturn:
        import signal

        if hangs:
            os.kill(self.process, signal.SIGKILL)
        _, status = os.waitpid(self.process, 0)
        self.died = True
        if hangs or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
            raise OutOfLimits(f"it takes more than {limits.seconds:.0f} s")
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == _NO_LAST_WORDS:
            raise OutOfLimits(_too_much_memory(limits))
        if os.WIFEXITED(status):
            raise Crashed("the process ended without an answer")
        raise Crashed("the native library crashed on it")

    def end(self) -> None:
        """Close the pipe and wait for the process, which ends by itself."""
        os.close(self._receive)
        if not self.died:
            os.waitpid(self.process, 0)
            self.died = True


def _too_much_memory(limits: Limits) -> str:
    return f"it takes more than {shown_size(limits.memory)} of memory"


def _serve(calls: _Calls, send: int, kept: set[int], parent: int) -> NoReturn:
    """The life of the child."""
    import signal

    code = _NO_LAST_WORDS
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it too: the parent decides
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if -1 in kept:  # the others wait for requests, and end with the pipe that these come from
            die_with_parent(parent)
        gc.disable()  # collecting would copy the parent's pages
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        _close_all_but(kept)
        base = -1
        for limits, call in calls():
            base = _address_space() if base < 0 else base
            _limit(limits, base)
            kind = _DONE
            try:
                data = call()
            except MemoryError:
                kind, data = _NO_MEMORY, b""
            except Exception as error:  # noqa: BLE001 - handed to the parent
                kind, data = _NO_MEMORY if "bad_alloc" in str(error) else _RAISED, str(error).encode("utf-8", "replace")
            _write(send, _ANSWER.pack(kind, len(data)) + data)
        code = 0
    finally:
        os._exit(code)


def _close_all_but(kept: set[int]) -> None:
    """Close inherited descriptors: who waits for their other ends must not wait for this process."""
    import resource

    most = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 16)
    start = 3
    for descriptor in [*sorted(one for one in kept if one > 2), most]:
        os.closerange(start, descriptor)
        start = descriptor + 1


def _limit(limits: Limits, base: int) -> None:
    """Limit what this process takes from now on, beside the address space that it began with (0: unknown)."""
    import math
    import resource

    _set_soft_limit(resource.RLIMIT_CORE, 0)
    _set_soft_limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + limits.seconds))
    if base:
        _set_soft_limit(resource.RLIMIT_AS, base + limits.memory)


def _set_soft_limit(kind: int, value: int) -> None:
    import resource

    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY and not 0 <= value <= hard:
        value = hard
    resource.setrlimit(kind, (value, hard))


def _address_space() -> int:
    """Bytes of address space that this process has; 0 if the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def _resident() -> int:
    """Bytes of memory that this process had at most."""
    import resource
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


_PIPE = 1 << 18
"""Bytes that a pipe holds, where the system allows it: a model's skeleton passes at once."""


def _pipe() -> tuple[int, int]:
    import fcntl
    from contextlib import suppress

    receive, send = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):  # the user's pipes hold as much as they may already
            fcntl.fcntl(send, fcntl.F_SETPIPE_SZ, _PIPE)
    return receive, send


def _write(pipe: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(pipe, view) :]


# The child that serves all models


class _Server:
    """Keeps one child for shape inference and the checker, and starts another when it is gone."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._child: _Child | None = None
        self._request = -1

    def ask(self, what: int, data: bytes) -> bytes:
        limits = Limits.of(len(data))
        for _ in range(2):
            child = self._child or self._start()
            try:
                _write(self._request, _REQUEST.pack(what, len(data)) + data)
            except BrokenPipeError:  # it had grown, and left after its last answer
                self._stop()
                continue
            try:
                return child.answer(limits)
            except Crashed:
                self._stop()
                raise
        raise Crashed("the native library crashed on it")

    def _start(self) -> _Child:
        request, self._request = _pipe()
        self._child = _Child(lambda: _requests(request), request)
        os.close(request)
        return self._child

    def _stop(self) -> None:
        if self._child is not None:
            os.close(self._request)
            self._child.end()
        self._child = None

    def forget(self) -> None:
        """In a fork of this process: the child is the parent's."""
        self.lock = threading.Lock()
        if self._child is not None:
            os.close(self._request)
            os.close(self._child._receive)
            self._child = None


def _requests(request: int) -> Iterator[tuple[Limits, Callable[[], bytes]]]:
    import resource
    from functools import partial

    extension()  # before the first limits hold: it takes memory that is none of a call's
    most = _resident() + GROWN
    while True:
        for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU):  # reading the next request is none of its call's work
            _set_soft_limit(kind, resource.RLIM_INFINITY)
        head = _read_all(request, _REQUEST.size)
        if not head:
            return
        what, length = _REQUEST.unpack(head)
        data = _read_all(request, length)
        yield Limits.of(length), partial(_answered, what, data)
        if _resident() > most:
            return


def _read_all(pipe: int, count: int) -> bytes:
    """Read this many bytes; empty if the pipe ends."""
    pieces = []
    while count:
        piece = os.read(pipe, min(count, _PIPE))
        if not piece:
            return b""
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


_server = _Server()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _server.forget())
