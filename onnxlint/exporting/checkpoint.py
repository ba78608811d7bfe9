"""Weights out of a file into a network: read safely, found in the checkpoint, and every key accounted for."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError
from onnxlint.text import counted, listed, nearest, printable

if TYPE_CHECKING:
    import torch

KEYS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "module",
    "params",
    "weights",
    "ema",
    "model_ema",
    "state_dict_ema",
    "ema_state_dict",
    "params_ema",
)
"""Entries of checkpoints that hold a state_dict, the preferred first."""

PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before each key."""

MOST_SHOWN = 5

_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_SIZES = re.compile(r"size mismatch for ([^:\s]+)")


@dataclass(frozen=True)
class Loaded:
    """What was loaded.

    Attributes:
        file: As the user named it.
        sha256: Of the file.
        keys: Tensors that the network took.
        entry: Entry of the checkpoint that held them; empty for the whole.
        others: Other entries that fit as well.
        prefix: What was removed from the front of every key.
        missing, unexpected: Keys that the user allowed to be missing or superfluous.
    """

    file: str
    sha256: str
    keys: int
    entry: str = ""
    others: tuple[str, ...] = ()
    prefix: str = ""
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()


def load_pickle(path: str, trust: bool, holds: str = "needs more than tensors") -> Any:
    """What torch.save wrote, on the CPU; only tensors and plain data unless the file is trusted.

    Args:
        path: The file.
        trust: Whether code in it may run.
        holds: What a file that needs code does, for the message.

    Raises:
        OnnxlintError: It cannot be read, or needs code.
    """
    import pickle

    import torch

    shown = printable(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        found = _GLOBAL.search(str(error))
        if found is None and ("Weights only" not in str(error) or "Unsupported operand" in str(error)):
            raise OnnxlintError(
                f"{shown}: is no file of torch.save, or is damaged; write it again: torch.save(model.state_dict(), FILE)"
            ) from None
        what = f" ({printable(found[1])})" if found else ""
        raise OnnxlintError(
            f"{shown}: {holds}{what}: loading it can run any code; add --trust if you made the file or trust who did, "
            "or save its weights alone: torch.save(model.state_dict(), FILE)"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - other files make the unpickler fail in all ways
        hint = "; its module has to be importable from the working directory" if isinstance(error, ImportError) else ""
        if isinstance(error, AttributeError):
            hint = "; the class has to be where it was when the file was written"
        if isinstance(error, RuntimeError):  # torch's reader of archives, in many words
            hint = "; it is cut short or damaged: copy or write it again"
        raise OnnxlintError(f"{shown}: is no file that torch can load: {_first(error)}{hint}") from None


def load_weights(
    network: torch.nn.Module,
    path: str,
    *,
    key: str | None = None,
    trust: bool = False,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
) -> Loaded:
    """Load the weights of a file into a network; every key has to match, but for those that the user names.

    Args:
        network: Changed in place.
        path: A file of torch.save, or a .safetensors file.
        key: Entry of the checkpoint; None looks for it.
        trust: See `load_pickle`.
        allow_missing, allow_unexpected: Patterns such as `fc.*`.

    Raises:
        OnnxlintError: It cannot be read, or keys do not match.
    """
    content = _read(path, trust)
    own = network.state_dict()
    entry, state, others = _choose(path, content, key, own)
    prefix, state = _without_prefix(state, own)
    shown = printable(path)
    try:
        result = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        wrong = list(dict.fromkeys(_SIZES.findall(str(error))))
        if not wrong:
            raise OnnxlintError(f"{shown}: cannot be loaded into {_name(network)}: {_first(error)}") from None
        raise OnnxlintError(f"{shown} does not fit {_name(network)}: {_mismatches(wrong, state, own)}") from None
    missing = [name for name in result.missing_keys if not _matches(name, allow_missing)]
    unexpected = [name for name in result.unexpected_keys if not _matches(name, allow_unexpected)]
    if missing or unexpected:
        raise OnnxlintError(f"{shown} does not fit {_name(network)}: {_differences(missing, unexpected, own, state)}")
    return Loaded(
        path,
        sha256_of(path),
        len(state) - len(result.unexpected_keys),
        entry,
        others,
        prefix,
        tuple(result.missing_keys),
        tuple(result.unexpected_keys),
    )


def sha256_of(path: str) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


def _read(path: str, trust: bool) -> Any:
    if not path.lower().endswith(".safetensors"):
        return load_pickle(path, trust)
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise OnnxlintError(f"{printable(path)}: needs safetensors: pip install safetensors") from None
    try:
        return load_file(path)
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes it raise
        raise OnnxlintError(f"{printable(path)}: is no safetensors file: {_first(error)}") from None


def _is_state(value: object) -> bool:
    import torch

    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(one, torch.Tensor) for name, one in value.items())
    )


def _tensors(value: object) -> dict[str, Any] | None:
    """The state_dict that an entry holds; of a module, its own. Extra state that is no tensor is kept."""
    import torch

    if isinstance(value, torch.nn.Module):
        return value.state_dict()
    if not isinstance(value, Mapping) or not any(isinstance(one, torch.Tensor) for one in value.values()):
        return None
    if not all(isinstance(key, str) for key in value):
        return None
    return value  # type: ignore[return-value] # a state_dict with its `_metadata`


def _choose(
    path: str, content: Any, key: str | None, own: Mapping[str, Any]
) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """The entry of a checkpoint that holds the weights, its tensors, and other entries that would fit as well."""
    shown = printable(path)
    entries = {str(name): one for name, one in content.items()} if isinstance(content, Mapping) else {}
    if key is not None:
        value: Any = content
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                there = [name for name, one in entries.items() if _tensors(one) is not None]
                hint = f"; entries with tensors: {listed(map(printable, there), 8)}" if there else ""
                raise OnnxlintError(f"--weights-key {printable(key)}: {shown} has no such entry{hint}")
            value = value[part]
        state = _tensors(value)
        if state is None:
            raise OnnxlintError(f"--weights-key {printable(key)}: that entry of {shown} holds no tensors by name")
        return key, state, ()
    if _is_state(content):
        return "", content, ()
    found = {name: state for name in KEYS if name in entries and (state := _tensors(entries[name])) is not None}
    # Lightning and others keep one dictionary in another.
    for name in ("model", "net", "state_dict", "ema"):
        inner = entries.get(name)
        if name not in found and isinstance(inner, Mapping):
            found |= {f"{name}.{k}": s for k in KEYS if k in inner and (s := _tensors(inner[k])) is not None}
    if not found:
        whole = _tensors(content)
        if whole is not None:
            return "", whole, ()
        what = (
            f"its entries: {listed(map(printable, entries), 8)}; name one with --weights-key"
            if entries
            else "it is no dictionary"
        )
        raise OnnxlintError(f"{shown}: holds no weights by name: {what}")
    fit = [name for name, state in found.items() if _share(state, own) == 1.0]
    best = fit[0] if fit else max(found, key=lambda name: _share(found[name], own))
    return best, found[best], tuple(name for name in fit if name != best)


def _share(state: Mapping[str, Any], own: Mapping[str, Any]) -> float:
    """How many of the network's keys a state_dict has, whatever its prefix: 0 to 1."""
    _, stripped = _without_prefix(state, own)
    return len(own.keys() & stripped.keys()) / max(len(own.keys() | stripped.keys()), 1)


def _without_prefix(state: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[str, Any]:
    """A state_dict without what training put before every key, and that prefix."""
    taken = ""
    names: Iterable[str] = list(state)
    while names:
        first = next(iter(names)).partition(".")
        prefix = first[0] + first[1]
        if not first[1] or not all(name.startswith(prefix) for name in names):
            break
        if any(name.startswith(prefix) for name in own):
            break
        shorter = [name[len(prefix) :] for name in names]
        # Any other prefix (`model.`, `net.`) goes only where the rest is the network's.
        if prefix not in PREFIXES and not set(shorter) & own.keys():
            break
        taken, names = taken + prefix, shorter
    if not taken:
        return "", state
    from collections import OrderedDict

    made: OrderedDict[str, Any] = OrderedDict((name[len(taken) :], value) for name, value in state.items())
    metadata = getattr(state, "_metadata", None)
    if isinstance(metadata, Mapping):
        kept = {str(k).removeprefix(taken).removeprefix(taken[:-1]): v for k, v in metadata.items()}
        made._metadata = OrderedDict(kept)  # type: ignore[attr-defined] # versions of layers
    return taken, made


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _name(network: Any) -> str:
    return printable(type(network).__name__)


def _shape(value: Any) -> str:
    return f"{list(getattr(value, 'shape', ()))}".replace(" ", "")


def _mismatches(wrong: Sequence[str], state: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    parts = [
        f"{printable(name)} is {_shape(state.get(name))} in the file and {_shape(own.get(name))} in the network"
        for name in wrong
    ]
    more = f" and {len(parts) - MOST_SHOWN} more" if len(parts) > MOST_SHOWN else ""
    return (
        f"{counted(len(wrong), 'shape')} of weights differ: {'; '.join(parts[:MOST_SHOWN])}{more}; "
        "give the arguments that it was trained with (--arg NAME=VALUE)"
    )


def _differences(
    missing: Sequence[str], unexpected: Sequence[str], own: Mapping[str, Any], state: Mapping[str, Any]
) -> str:
    parts = []
    for keys, what, others in ((missing, "missing", unexpected), (unexpected, "unexpected", missing)):
        if not keys:
            continue
        shown = []
        for name in keys[:MOST_SHOWN]:
            near = nearest(name, others) if others else None
            shown.append(f"{printable(name)}{f' (near {printable(near)})' if near and what == 'missing' else ''}")
        more = f" and {len(keys) - MOST_SHOWN} more" if len(keys) > MOST_SHOWN else ""
        parts.append(f"{counted(len(keys), 'key')} {what}: {', '.join(shown)}{more}")
    matched = len(own.keys() & state.keys())
    allow = " ".join(
        f"--allow-{what} '{_pattern(keys)}'"
        for keys, what in ((missing, "missing"), (unexpected, "unexpected"))
        if keys
    )
    way = (
        "is this another network, or does it take another --arg?" if not matched else f"to export all the same: {allow}"
    )
    return f"{'; '.join(parts)}; {matched} of {len(own)} match; {way}"


def _pattern(keys: Sequence[str]) -> str:
    """A pattern that covers all keys, as narrow as it can be short."""
    if len(keys) == 1:
        return printable(keys[0])
    parts = [name.split(".") for name in keys]
    common = list(itertools.takewhile(lambda each: len(set(each)) == 1, zip(*parts, strict=False)))
    return printable(".".join([*(each[0] for each in common), "*"]))


def _first(error: BaseException) -> str:
    """The class of an exception, and the first sentence that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Error(s) in loading"):
        lines = lines[1:]
    said = lines[0].partition("an exception occurred : (")[2].strip("'\",).") or lines[0] if lines else ""
    text = printable(said.partition(". ")[0])[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
