"""The network: made by the user's factory, or loaded from a file that torch wrote. Needs torch, and runs the user's code."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError
from onnxlint.exporting.checkpoint import load_pickle
from onnxlint.exporting.spec import Spec, saved_kind
from onnxlint.text import did_you_mean, listed, printable

if TYPE_CHECKING:
    import torch


def build(spec: Spec, arguments: dict[str, Any], trust: bool) -> Any:
    """The network of a spec: a module, a TorchScript program, or an exported program.

    Raises:
        OnnxlintError: It cannot be made.
    """
    if spec.kind == "saved":
        return _load(spec.place, arguments, trust)
    factory = _attribute(spec)
    return _call(spec, factory, arguments)


def _attribute(spec: Spec) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = _import_file(spec.place) if spec.kind == "file" else importlib.import_module(spec.place)
    except ImportError as error:
        raise OnnxlintError(f"{printable(spec.text)}: {printable(str(error))}{_where(error)}") from None
    except Exception as error:  # noqa: BLE001 - the user's code
        raise OnnxlintError(f"{printable(spec.text)}: importing it failed: {said(error)}{_where(error)}") from None
    found: Any = module
    for part in spec.factory.split("."):
        if not hasattr(found, part):
            public = [name for name in vars(found) if not name.startswith("_") and callable(getattr(found, name))]
            hint = did_you_mean(part, public, f"it has {listed(map(printable, public), 6)}" if public else "")
            raise OnnxlintError(f"{printable(spec.text)}: {printable(spec.place)} has no {printable(part)!r}{hint}")
        found = getattr(found, part)
    return found


def _import_file(path: str) -> Any:
    """A Python file as a module; one in a package under its full name, so that relative imports work."""
    path = os.path.abspath(path)
    folder, name = os.path.split(path)
    parts = [os.path.splitext(name)[0]]
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, parent = os.path.split(folder)
        parts.insert(0, parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    full = ".".join(parts)
    if len(parts) > 1:
        return importlib.import_module(full)
    spec = importlib.util.spec_from_file_location(full, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module  # what classes refer to
    spec.loader.exec_module(module)
    return module


def _call(spec: Spec, factory: Any, arguments: dict[str, Any]) -> Any:
    import torch

    shown = printable(spec.text)
    if isinstance(factory, torch.nn.Module):
        if arguments:
            raise OnnxlintError(f"{shown}: is a module already and takes no --arg")
        return factory
    if not callable(factory):
        raise OnnxlintError(f"{shown}: is neither a function nor a class, but {printable(type(factory).__name__)}")
    _require_arguments(shown, factory, arguments)
    torch.manual_seed(0)
    try:
        made = factory(**arguments)
    except Exception as error:  # noqa: BLE001 - the user's code
        raise OnnxlintError(f"{shown}: failed: {said(error)}{_where(error)}") from None
    made = unwrapped(made)
    if not isinstance(made, torch.nn.Module):
        raise OnnxlintError(f"{shown}: returns {printable(type(made).__name__)}, and should return a torch.nn.Module")
    return made


def unwrapped(network: Any) -> Any:
    """A network without what training put around it: DataParallel, torch.compile."""
    import torch

    parallel = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while isinstance(network, torch.nn.Module):
        inner = network.module if isinstance(network, parallel) else getattr(network, "_orig_mod", None)
        if not isinstance(inner, torch.nn.Module):
            break
        network = inner
    return network


def _require_arguments(shown: str, factory: Any, arguments: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return
    parameters = signature.parameters.values()
    names = [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
    for name in arguments:
        if name not in names and not takes_any:
            hint = did_you_mean(name, names, f"it takes {listed(names, 8)}" if names else "it takes none")
            raise OnnxlintError(f"--arg {printable(name)}: {shown} has no such parameter{hint}")
    missing = [
        one.name for one in parameters if one.default is one.empty and one.name in names and one.name not in arguments
    ]
    if missing:
        given = " ".join(f"--arg {name}=…" for name in missing)
        raise OnnxlintError(f"{shown}: needs {listed(missing)}; give {given}")


def _load(path: str, arguments: dict[str, Any], trust: bool) -> Any:
    """A network out of a file: a whole pickled module, a TorchScript program, or an exported program."""
    import torch

    shown = printable(path)
    if arguments:
        raise OnnxlintError(f"{shown}: is a saved network, and takes no --arg")
    kind = saved_kind(path)
    if kind == "program":
        if not trust:
            raise OnnxlintError(
                f"{shown}: is an exported program (.pt2), and torch.export.load evaluates expressions in it, which can run "
                "code; add --trust if you made the file or trust who did"
            )
        try:
            return torch.export.load(path)
        except Exception as error:  # noqa: BLE001 - a damaged file makes it fail in all ways
            raise OnnxlintError(f"{shown}: cannot be loaded: {said(error)}") from None
    if kind == "torchscript":
        try:
            return torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001 - a damaged file makes it fail in all ways
            raise OnnxlintError(f"{shown}: cannot be loaded: {said(error)}") from None
    made = load_pickle(path, trust, "holds a whole module")
    if isinstance(made, dict):
        made = next((one for key in ("ema", "model", "net") if isinstance(one := made.get(key), torch.nn.Module)), made)
    if not isinstance(made, torch.nn.Module):
        raise OnnxlintError(
            f"{shown}: holds weights and no network; name what builds it: package.module:factory --weights {shown}"
        )
    made = unwrapped(made)
    return made.float() if _is_half(made) else made


def _is_half(module: torch.nn.Module) -> bool:
    """Whether a saved network was stored in float16 to save space, as training scripts do."""
    import torch

    kinds = {parameter.dtype for parameter in module.parameters()}
    return kinds == {torch.float16}


def said(error: BaseException) -> str:
    """What an exception says, in one line: the first that has letters, its type before it."""
    lines = [line.strip() for line in str(error).splitlines() if any(c.isalpha() for c in line)]
    text = printable(lines[0] if lines else "")
    text = text if len(text) <= 300 else f"{text[:300]}…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _where(error: BaseException) -> str:
    """The innermost line outside torch and onnxlint that raised."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = frame.filename.replace("\\", "/")
        if not path.startswith(("<", here)) and "/torch/" not in path and "importlib" not in path:
            return f" ({shown_file(path)}:{frame.lineno})"
    return ""


def shown_file(path: str) -> str:
    """A source file as messages name it: from the working directory, an installed package's from its package."""
    parts = path.replace("\\", "/").rpartition("-packages/")
    if parts[1]:
        return printable(parts[2])
    try:
        near = os.path.relpath(path)
    except ValueError:  # on another drive
        return printable(path)
    return printable(near if len(near) < len(path) else path)
