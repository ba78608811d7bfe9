"""OUT004: inputs and outputs whose names the exporter made up."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from onnxlint import Applicability, Example, Finding, Fix, Graph, GraphView, Node, Options, Rule, Silent, printable
from onnxlint_rules._graph import advice

_SHOWN = 5

_GENERATED = re.compile(
    r"""
    onnx::\w+                                                       # TorchScript: onnx::Flatten_0
  | /.+_output_\d+                                                  # TorchScript since 1.13: /head/Softmax_output_0
  | val_\d+                                                         # torch.export
  | (l_)?args?_?\d+(_\d+)*_?                                        # torch.export: arg0_1, args_0, l_args_0_
  | (Stateful)?PartitionedCall(_\d+)?(:\d+)?                        # TensorFlow: StatefulPartitionedCall:1
  | Identity(_\d+)?(:\d+)?                                          # TensorFlow: Identity_1:0
  | (serving_default_)?(args|input|inputs|keras_tensor)_\d+:\d+     # TensorFlow: serving_default_input_2:0
  | (\w+_\d+|save_infer_model/scale_\d+)\.tmp_\d+                   # Paddle: softmax_11.tmp_0
    """,
    re.VERBOSE,
)
_NUMBER = re.compile(r"\d+")
_SUFFIXED = re.compile(r"([A-Za-z_]\w*)\.([1-9]\d*)")  # TorchScript: input.1, x.11
_FX_NODE = re.compile(r"%(\S+) :")
_ATEN = re.compile(
    r"""_?(to_copy|softmax|log_softmax|native_\w+|unsafe_view)_\d+
      | (add|addmm|alias|amax|amin|argmax|bmm|cat|clamp|clone|conv[123]d|convolution|copy|div|einsum|expand|flatten
      |gather|gelu|getitem|index|index_put|layer_norm|linear|matmul|max|mean|min|mm|mul|neg|permute|pow|relu|reshape
      |rsqrt|scaled_dot_product_attention|select|sigmoid|silu|slice|slice_scatter|split|sqrt|squeeze|stack|sub|sum
      |tanh|transpose|unbind|unsqueeze|upsample_\w+|view|where)_\d+""",
    re.VERBOSE,
)
_KERAS = re.compile(
    r"""(activation|add|average|batch_normalization|bidirectional|concatenate|conv[123]d(_transpose)?|dense|dropout|embedding
      |flatten|global_(average|max)_pooling[123]d|gru|input|keras_tensor|lambda|leaky_re_lu|lstm|max_pooling[123]d|multiply
      |re_lu|reshape|separable_conv[12]d|softmax|subtract|tf_op_layer_\w+|time_distributed|up_sampling[123]d)(_\d+)?""",
    re.VERBOSE,
)


class GeneratedIoNames(Rule):
    """An input or output has a name that the exporter generated.

    ## What it does

    Reports the inputs, and the outputs, whose names no person chose: value numbers (`558`), TorchScript's `input.1`,
    `onnx::Flatten_0` and `/head/Softmax_output_0`, torch.export's `cat_3`, `softmax` and `val_12` (told from a chosen
    `softmax` by the node's metadata), TensorFlow's `Identity:0` and `StatefulPartitionedCall:1`, Keras' `conv2d_19`,
    Paddle's `softmax_11.tmp_0`. One finding for all inputs, one for all outputs.

    ## Why it hurts

    The names are the interface: `session.run(["558"], …)`, `ex.extract("558", out)`, `context.set_tensor_address("558",
    …)`. Generated ones change with anything: another opset, exporter or PyTorch version, a layer more or less. The same
    RetinaFace has its scores in `572`, `562`, `607` or `softmax`, depending on how it was exported. ncnn then logs
    `find_blob_index_by_name 558 failed` and gives an empty result; ONNX Runtime raises. And the numbers say nothing: in that
    model, `576` comes before `575`. Passing too few `output_names` is enough: the exporter numbers the rest in silence.

    ## Fix it at the source

    ```python
    # before
    torch.onnx.export(model, x, "model.onnx", output_names=["boxes"])
    # after: one name for each tensor that forward() returns
    torch.onnx.export(model, x, "model.onnx", input_names=["image"], output_names=["boxes", "scores", "landmarks"])
    ```

    ## Fix safety

    Renaming is exact for the numbers. It changes the interface: whoever asks for the old names has to be changed in the
    same step. `onnxlint fix --rename 558=boxes` does it; names after the modules that make the outputs are proposed.

    ## References

    - [torch.onnx.export](https://docs.pytorch.org/docs/stable/onnx.html): `input_names`, `output_names`
    - [YOLOv5: outputs are called output, 731 and 751](https://github.com/ultralytics/yolov5/issues/1768)
    - [NanoDet: fixed output names for the ONNX export](https://github.com/RangiLyu/nanodet/pull/218)
    - [Anomalib: names differ from one machine to
      another](https://github.com/open-edge-platform/anomalib/issues/3024)
    - [ncnn, net.cpp](https://github.com/Tencent/ncnn/blob/master/src/net.cpp): `find_blob_index_by_name %s failed`
    """

    code = "OUT004"
    name = "generated-io-names"
    help = "pass input_names and output_names to torch.onnx.export, one for each tensor"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] "input.1") => (float[N,4] boxes, float[N,4] "558", float[N,4] "/head/Softmax_output_0") {
                boxes = Relu ("input.1")
                "558" = Neg ("input.1")
                "/head/Softmax_output_0" = Softmax ("input.1")
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] image) => (float[N,4] boxes, float[N,4] offsets, float[N,4] scores) {
                boxes = Relu (image)
                offsets = Neg (image)
                scores = Softmax (image)
            }
            """,
            findings=2,
            equal=False,
            says="the input has a name that the exporter generated: 'input.1'",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13], producer_name: "tf2onnx">
            g (float[N,4] image) => (float[N,4] "Identity:0", float[N,4] "StatefulPartitionedCall:1", float[N,4] dense_1) {
                "Identity:0" = Relu (image)
                "StatefulPartitionedCall:1" = Neg (image)
                dense_1 = Sigmoid (image)
            }
            """,
            says="3 of 3 outputs have names that the exporter generated",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] input_1, float[N,4] x, float[N,4] "state.0", float[N,4] "state.1")
            => (float[N,4] output_1, float[N,4] "present.0.key", float[N,4] logits, float[N,4] softmax) {
                output_1 = Relu (input_1)
                "present.0.key" = Neg (x)
                logits = Neg ("state.0")
                softmax = Softmax ("state.1")
            }
            """,
            why="the names are descriptive",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] "0", float[N,4] "1", float[N,4] "2") {
                "0" = Relu (x)
                "1" = Neg (x)
                "2" = Abs (x)
            }
            """,
            why="0, 1, 2: the keys of torchvision's feature pyramid",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        graph = view.main
        for what, names in (("input", graph.data_inputs), ("output", list(dict.fromkeys(graph.outputs)))):
            made_up = _made_up(view, names, what == "output")
            if made_up:
                better = _proposal(view, made_up, what == "output")
                yield self.found(
                    view.at(value=made_up[0]),
                    _message(what, made_up, len(names)),
                    help=advice(view, self.help, "name inputs and outputs at export, or rename them"),
                    names=_list(made_up),
                    proposal=" ".join(f"--rename '{printable(old)}={new}'" for old, new in better.items()),
                    fix=Fix(Applicability.UNSAFE, flag="--rename OLD=NEW"),
                    group="inputs and outputs have names that the exporter generated",
                )


def _proposal(view: GraphView, names: Sequence[str], are_outputs: bool) -> dict[str, str]:
    """Descriptive names: the module of an output, the kind of an input."""
    used = {name for node in view.main.nodes for name in (*node.inputs, *node.outputs)} | set(view.main.inputs)
    found: dict[str, str] = {}
    for name in names:
        base = _module(view, name) or "output" if are_outputs else _kind(view, name)
        i, text = 1, base
        while text in used:
            i += 1
            text = f"{base}_{i}"
        used.add(text)
        found[name] = text
    return found


def _module(view: GraphView, name: str) -> str:
    """Last part of the module path of an output's producer; empty if the exporter kept none."""
    node = view.main.producer(name)
    for _ in range(8):
        if node is None:
            break
        parts = [part for part in re.split(r"[./]", view.sources.scope(node.proto)) if part and not part.isdigit()]
        word = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", parts[-1]).lower() if parts else ""
        if word.isidentifier() and word not in ("model", "module"):
            return word
        node = next((p for i in range(len(node.inputs)) if (p := node.producer(i)) is not None), None)
    return ""


def _kind(view: GraphView, name: str) -> str:
    shape, kind = view.main.shape(name), view.main.dtype(name)
    if kind in (6, 7) and shape is not None and len(shape) == 2:
        return "input_ids"
    return "image" if shape is not None and len(shape) == 4 else "input"


def _made_up(view: GraphView, names: Sequence[str], are_outputs: bool) -> list[str]:
    if len(names) > 1 and list(names) == [str(i) for i in range(len(names))]:
        return []  # keys of a dict, in order
    # Series such as state.0, state.1 are meant; TorchScript numbers one name once.
    bases = Counter(match[1] for name in names if (match := _SUFFIXED.fullmatch(name)))
    keras = "tf2onnx" in view.proto.producer_name or "keras" in view.proto.producer_name
    torch = view.proto.producer_name == "pytorch"
    renamed = _renamed(view) if are_outputs else frozenset()
    found = []
    for name in names:
        suffixed = _SUFFIXED.fullmatch(name)
        if name in renamed:
            continue
        if (
            _NUMBER.fullmatch(name)
            or _GENERATED.fullmatch(name)
            or (suffixed and bases[suffixed[1]] == 1 and f"{suffixed[1]}.0" not in names)
            or (torch and are_outputs and _ATEN.fullmatch(name))
            or (keras and _KERAS.fullmatch(name))
            or (are_outputs and _is_fx_name(view.main, name))
        ):
            found.append(name)
    return found


def _renamed(view: GraphView) -> frozenset[str]:
    """Outputs that torch.onnx.export renamed as its caller asked: it notes the name before."""
    return frozenset(
        value.name
        for value in view.proto.graph.output
        if any(entry.key == "pkg.torch.onnx.original_node_name" for entry in value.metadata_props)
    )


def _is_fx_name(graph: Graph, name: str) -> bool:
    """Whether an output is called as the torch.export node that makes it."""
    node: Node | None = graph.producer(name)
    if node is None:
        return False
    for entry in node.proto.metadata_props:
        if entry.key == "pkg.torch.onnx.fx_node":
            match = _FX_NODE.match(entry.value)
            return match is not None and match[1] == name
    return False


def _message(what: str, made_up: list[str], total: int) -> str:
    shown = _list(made_up[:_SHOWN]) + (f" and {len(made_up) - _SHOWN} more" if len(made_up) > _SHOWN else "")
    if total == 1:
        return f"the {what} has a name that the exporter generated: {shown}"
    verb = "has a name" if len(made_up) == 1 else "have names"
    return f"{len(made_up)} of {total} {what}s {verb} that the exporter generated: {shown}"


def _list(names: list[str]) -> str:
    return ", ".join(repr(printable(name)) for name in names)
