"""What cannot work, said before torch is imported: missing packages, missing files, options that contradict each other."""

from __future__ import annotations

import os
from importlib.util import find_spec

from onnxlint.errors import OnnxlintError
from onnxlint.exporting.options import AUTO, EXPORTERS, NEWEST_OPSET, OLDEST_OPSET, ExportOptions, FixSource
from onnxlint.exporting.spec import Spec, holds_weights_alone, inputs_of, saved_kind
from onnxlint.model.output import check_writable
from onnxlint.model.protect import refuse_inputs
from onnxlint.model.reading import no_such_file
from onnxlint.text import choices, counted, did_you_mean, listed, printable

EXTRA = "install it with \"pip install 'onnxlint[torch]'\""


def require_usable(
    options: ExportOptions, spec: Spec | None, output: str | None, fixing: FixSource | None = None
) -> None:
    """Raise for what cannot work, before torch is imported.

    Raises:
        OnnxlintError: A package is missing, a file does not exist, or an option is wrong.
    """
    if find_spec("torch") is None:
        raise OnnxlintError(f"export needs torch: {EXTRA}")
    if options.exporter not in (AUTO, *EXPORTERS):
        hint = did_you_mean(options.exporter, (AUTO, *EXPORTERS), choices((AUTO, *EXPORTERS)))
        raise OnnxlintError(f"--exporter: no exporter is called {printable(options.exporter)!r}{hint}")
    if options.exporter != "torchscript" and find_spec("onnxscript") is None:
        raise OnnxlintError(f"the dynamo exporter needs onnxscript: {EXTRA}, or use --exporter torchscript")
    if options.verify and find_spec("onnxruntime") is None:
        raise OnnxlintError(f"comparing the network with the model needs onnxruntime: {EXTRA}, or give --no-verify")
    if options.opset is not None and not OLDEST_OPSET <= options.opset <= NEWEST_OPSET:
        raise OnnxlintError(f"--opset {options.opset}: the exporters write opsets {OLDEST_OPSET} to {NEWEST_OPSET}")
    if fixing is not None:
        _require_fixable(options, spec)
    for flag, path in (("--weights", options.weights), ("--inputs", options.values)):
        if path is not None and not os.path.isfile(path):
            what = "is a folder" if os.path.isdir(path) else no_such_file(path)
            raise OnnxlintError(f"{flag} {printable(path)}: {what}")
    if spec is not None:
        require_network(spec)
        _require_inputs(spec, options)
    if options.weights is not None:
        _require_checkpoint(options.weights)
    if options.weights is None:
        for flag, given in (
            ("--weights-key", options.weights_key),
            ("--allow-missing", options.allow_missing),
            ("--allow-unexpected", options.allow_unexpected),
        ):
            if given:
                raise OnnxlintError(f"{flag}: is about a file of weights; give --weights FILE")
    for flag, names in (("--input-names", options.input_names), ("--output-names", options.output_names)):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise OnnxlintError(f"{flag}: {printable(twice)!r} is given twice")
    both = set(options.input_names) & set(options.output_names)
    if both:
        raise OnnxlintError(f"--output-names: {printable(min(both))!r} is the name of an input")
    if output is not None:
        check_writable(output)
        read = [options.weights, options.values, spec.place if spec is not None else None]
        refuse_inputs(output, [path for path in read if path is not None and os.path.isfile(path)])


def require_network(spec: Spec) -> None:
    """Raise if a spec names a file that holds weights and no network.

    Raises:
        OnnxlintError: It does.
    """
    if spec.kind == "saved" and saved_kind(spec.place) == "pickle" and holds_weights_alone(spec.place):
        shown = printable(spec.text)
        raise OnnxlintError(
            f"{shown}: holds weights and no network; name what builds it: package.module:factory --weights {shown}"
        )


def _require_inputs(spec: Spec, options: ExportOptions) -> None:
    """Raise if nothing says how large the inputs of a factory's network are."""
    if spec.kind != "saved" and not options.inputs:
        shown = printable(spec.text)
        names = [printable(name) for name in inputs_of(spec)]
        wanted = f"its {counted(len(names), 'input')} ({listed(names, 8)})" if names else "its input"
        example = " ".join(f"--shape {name}=1,3,640,640" for name in names[:2]) or "--shape 1,3,640,640"
        raise OnnxlintError(f"{shown}: needs an example of {wanted}: give {example}")


def _require_checkpoint(path: str) -> None:
    """Raise if a file cannot be one of torch.save, by its first bytes."""
    if path.lower().endswith(".safetensors"):
        return
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError as error:
        raise OnnxlintError(f"--weights {printable(path)}: cannot be read: {error.strerror or error}") from None
    if not start.startswith((b"PK", b"\x80")) and start[257:262] != b"ustar":
        what = (
            "is an ONNX model" if path.lower().endswith(".onnx") else "is neither a file of torch.save nor .safetensors"
        )
        raise OnnxlintError(f"--weights {printable(path)}: {what}; give the checkpoint that training wrote")


def _require_fixable(options: ExportOptions, spec: Spec | None) -> None:
    """Raise if the source of the network cannot be changed and built again."""
    if spec is None or spec.kind == "saved":
        raise OnnxlintError("--fix-source changes the network's source; name the factory in it: package.module:factory")
    if find_spec("libcst") is None:
        raise OnnxlintError(f"--fix-source needs libcst: {EXTRA}")
    if not options.verify:
        raise OnnxlintError("--fix-source compares the network before and after; leave out --no-verify")
