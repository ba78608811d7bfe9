"""Run native code on files that anybody can make, without trusting it with this process.

onnx's shape inference aborts on some malformed models (an assertion of the C++ library, a wild index). In a forked child
that ends the child, and the check goes on.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable


class Crashed(RuntimeError):  # noqa: N818 - what happened to the child
    """The child was killed by a signal."""


def apart(call: Callable[[], bytes]) -> bytes:
    """The result of a call made in a forked child; made here where there is no fork.

    Raises:
        Crashed: The child did not survive it.
        RuntimeError: The call raised; the message is the original's.
    """
    if not hasattr(os, "fork"):
        try:
            return call()
        except Exception as error:
            raise RuntimeError(str(error)) from error
    receive, send = os.pipe()
    with warnings.catch_warnings():
        # The child calls one C++ function and ends: locks that other threads hold here do not matter to it.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(receive)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            try:
                answer = b"+" + call()
            except Exception as error:  # noqa: BLE001 - handed to the parent
                answer = b"-" + str(error).encode("utf-8", "replace")
            with os.fdopen(send, "wb") as pipe:
                pipe.write(answer)
            code = 0
        finally:
            os._exit(code)
    os.close(send)
    try:
        with os.fdopen(receive, "rb") as pipe:
            answer = pipe.read()
    finally:
        _, status = os.waitpid(child, 0)
    if status != 0 or not answer:
        raise Crashed("the native library crashed on it")
    if answer[:1] == b"-":
        raise RuntimeError(answer[1:].decode("utf-8", "replace"))
    return answer[1:]
