"""Export small, randomly initialised `transformers` models with both of PyTorch's ONNX exporters.

    python benchmarks/transformers_exports.py [--out DIR] [--only REGEX] [--list]

Nothing is downloaded: each model is built from a tiny config. A file is called

    NAME__ATTENTION__EXPORTER__SHAPES.onnx      e.g. bert__sdpa__dynamo__dyn.onnx

ATTENTION is eager, sdpa or auto (the library's choice, and where there is none),
EXPORTER is ts (TorchScript, opset 17) or dynamo (torch.export, its default opset), SHAPES is st (static) or dyn
(batch, and size or length, dynamic).

Each export is compared with PyTorch in onnxruntime, a dynamic one also at a second shape.
EXPORTED.tsv says how that went; FAILED.txt has the tracebacks of the exports that raised (FAILED, no file) and of the
files that onnxruntime refuses or that give other shapes (WRONG). A failed export never stops the run.
"""

from __future__ import annotations

import argparse
import re
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

Inputs = dict[str, Tensor]
Axes = dict[str, dict[int, str]]
TRACED = {"n": 2, "h": 64, "w": 96, "t": 12}  # a dynamic model is traced here (torch.export would fix a 1)
SECOND = {"n": 3, "h": 96, "w": 64, "t": 20}  # ... and run at this one too
STATIC = {"n": 1, "h": 64, "w": 64, "t": 16}


@dataclass(frozen=True)
class Case:
    """One model to export. `build(attn)` makes it; `inputs(n=, h=, w=, t=)` makes its inputs."""

    name: str
    build: Callable[[str], nn.Module]
    inputs: Callable[..., Inputs]
    axes: Axes
    outputs: tuple[str, ...]
    attn: tuple[str, ...] = ("auto",)
    constants: dict = field(default_factory=dict)  # keyword arguments that are not graph inputs
    static: dict = field(default_factory=dict)  # the model's own sizes, where the defaults do not fit
    traced: dict = field(default_factory=dict)
    second: dict = field(default_factory=dict)


class Named(nn.Module):
    """Calls the model by keyword and returns the named outputs as a tuple, so that both exporters see plain tensors."""

    def __init__(self, model: nn.Module, inputs: list[str], outputs: tuple[str, ...], constants: dict):
        super().__init__()
        self.model, self.inputs, self.outputs, self.constants = model, inputs, outputs, constants

    def forward(self, *args):
        out = self.model(**dict(zip(self.inputs, args, strict=True)), **self.constants)
        return tuple(getattr(out, name) for name in self.outputs)


GAIN = {2: 1.0, 3: 2.0, 4: 2.0}  # a convolution is mostly followed by a ReLU or SiLU


@torch.no_grad()
def settle(model: nn.Module) -> nn.Module:
    """Makes random weights behave like trained ones: activations of size one, so that a comparison can see a wrong
    layer, and normalisation statistics that are not zero and one, so that it can see a wrongly folded one."""
    gen = torch.Generator().manual_seed(1)
    for m in model.modules():
        if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d) and not hasattr(m, "parametrizations"):
            scale = (GAIN[m.weight.ndim] / m.weight[0].numel()) ** 0.5
            m.weight.copy_(torch.randn(m.weight.shape, generator=gen) * scale)
        if getattr(m, "running_mean", None) is not None:
            if m.weight is not None:  # a frozen one has buffers by the same names
                m.weight.copy_(torch.rand(m.weight.shape, generator=gen) + 0.5)
                m.bias.copy_(torch.randn(m.bias.shape, generator=gen) * 0.1)
            m.running_mean.copy_(torch.randn(m.running_mean.shape, generator=gen) * 0.1)
            m.running_var.copy_(torch.rand(m.running_var.shape, generator=gen) + 0.5)
    return model


def export(case: Case, attn: str, exporter: str, dynamic: bool, path: Path, **options) -> float:
    """Exports one case to `path`. Returns the largest difference from PyTorch seen in onnxruntime."""
    import onnxruntime

    torch.manual_seed(0)
    model = settle(case.build(attn)).eval()
    shapes = [{**TRACED, **case.traced}, {**SECOND, **case.second}] if dynamic else [{**STATIC, **case.static}]
    feeds = [case.inputs(**s) for s in shapes]
    names = list(feeds[0])
    named = Named(model, names, case.outputs, case.constants).eval()
    args = tuple(feeds[0].values())
    common = dict(input_names=names, output_names=list(case.outputs), **options)
    if exporter == "ts":
        axes = {k: dict(v) for k, v in case.axes.items()} if dynamic else None
        if axes:  # the exporter only names the axes that it is told of, outputs too
            with torch.no_grad():
                axes |= moving(named, feeds, case)
        torch.onnx.export(named, args, path, dynamo=False, dynamic_axes=axes, **{"opset_version": 17, **common})
    else:
        axes = (tuple(dict(case.axes.get(k, {})) for k in names),) if dynamic else None  # one entry for *args
        torch.onnx.export(named, args, path, dynamo=True, dynamic_shapes=axes, **{"external_data": False, **common})

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    kept = {i.name for i in session.get_inputs()}
    worst = 0.0
    for feed in feeds:
        with torch.no_grad():
            want = named(*feed.values())
        at = ", ".join(str(list(v.shape)) for v in feed.values())
        try:
            got = session.run(None, {k: v.numpy() for k, v in feed.items() if k in kept})
        except Exception as error:
            raise DoesNotRunError(
                f"traced at another shape, at {at}: {error}" if feed is not feeds[0] else error
            ) from error
        for w, g in zip(want, got, strict=True):
            if tuple(w.shape) != g.shape:
                raise ShapeDiffersError(f"at {at} onnxruntime gives {list(g.shape)}, PyTorch {list(w.shape)}")
            worst = max(worst, float(np.abs(w.numpy().astype(np.float64) - g).max(initial=0)))
    return worst


def moving(named: nn.Module, feeds: list[Inputs], case: Case) -> Axes:
    """The output axes that move when the inputs do, named after what an exporter's user would call them."""
    one, two = (named(*f.values()) for f in feeds)
    axes: Axes = {}
    for name, a, b in zip(case.outputs, one, two, strict=True):
        axes[name] = {i: "batch" if i == 0 else f"{name}_{i}" for i in range(a.ndim) if a.shape[i] != b.shape[i]}
    return axes


class DoesNotRunError(RuntimeError):
    """The file was written and loads, but fails in onnxruntime."""


class ShapeDiffersError(AssertionError):
    """The file was written, but at some input shape its output has another shape than PyTorch's."""


# The inputs --------------------------------------------------------------------------------------------------------


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def image(n, h, w, **_) -> Inputs:
    return {"pixel_values": torch.randn(n, 3, h, w, generator=rng())}


def text(n, t, **_) -> Inputs:
    mask = torch.ones(n, t, dtype=torch.int64)
    mask[-1, t - t // 4 :] = 0  # the last row is padded
    return {"input_ids": torch.randint(3, 90, (n, t), generator=rng()), "attention_mask": mask}


def ids(n, t, **_) -> Inputs:
    return {"input_ids": text(n, t)["input_ids"]}


def typed_text(n, t, **_) -> Inputs:
    return {**text(n, t), "token_type_ids": torch.zeros(n, t, dtype=torch.int64)}


def pair(n, t, **_) -> Inputs:
    return {**text(n, t), "decoder_input_ids": torch.randint(3, 90, (n, 5), generator=rng())}


def wave(n, t, **_) -> Inputs:
    return {"input_values": torch.randn(n, t * 200, generator=rng())}


def mel(n, **_) -> Inputs:
    return {"input_features": torch.randn(n, 16, 40, generator=rng())}


def image_text(n, h, w, t, **_) -> Inputs:
    return {"input_ids": ids(n, t)["input_ids"], **image(n, h, w), "attention_mask": text(n, t)["attention_mask"]}


BATCH = {"pixel_values": {0: "batch"}}
SIZE = {"pixel_values": {0: "batch", 2: "height", 3: "width"}}
TOKENS = {k: {0: "batch", 1: "sequence"} for k in ("input_ids", "attention_mask")}
SQUARE = dict(static=dict(h=64, w=64), traced=dict(h=64, w=64), second=dict(h=64, w=64))  # only the batch is dynamic
BOTH = ("eager", "sdpa")

# The models --------------------------------------------------------------------------------------------------------


def tf(model: str, config: str | None = None, **values) -> Callable[[str], nn.Module]:
    """A builder of a `transformers` model from its class name and config values, with random weights."""

    def build(attn: str) -> nn.Module:
        import transformers

        # AutoModel... resolve to the architecture by its config; plain classes have a config_class
        cls = getattr(transformers, model)
        made = {k: v() if callable(v) else v for k, v in values.items()}
        conf = getattr(transformers, config)(**made) if config else cls.config_class(**made)
        return cls._from_config(conf, **({} if attn == "auto" else {"attn_implementation": attn}))

    return build


def conf(name: str, **values) -> Callable[[], object]:
    """A nested config, built late: `transformers` is imported only when a model is."""

    def build():
        import transformers

        return getattr(transformers, name)(**values)

    return build


def enc(**more) -> dict:
    """The sizes that most encoder configs share."""
    return dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64) | more


def resnet(**more):
    return conf(
        "ResNetConfig",
        embedding_size=16,
        hidden_sizes=[16, 24, 32, 48],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        **more,
    )


CASES = [
    Case(
        "vit",
        tf("ViTForImageClassification", image_size=64, patch_size=16, num_labels=10, **enc()),
        image,
        BATCH,
        ("logits",),
        BOTH,
        **SQUARE,
    ),
    Case(
        "vit_interp",
        tf("ViTForImageClassification", image_size=64, patch_size=16, num_labels=10, **enc()),
        image,
        SIZE,
        ("logits",),
        ("eager",),
        constants=dict(interpolate_pos_encoding=True),
    ),
    Case(
        "deit",
        tf("DeiTForImageClassification", image_size=64, patch_size=16, num_labels=10, **enc()),
        image,
        BATCH,
        ("logits",),
        ("sdpa",),
        **SQUARE,
    ),
    Case(
        "beit",
        tf(
            "BeitForImageClassification",
            image_size=64,
            patch_size=16,
            num_labels=10,
            use_relative_position_bias=True,
            **enc(),
        ),
        image,
        BATCH,
        ("logits",),
        ("eager",),
        **SQUARE,
    ),
    Case(
        "dinov2",
        tf(
            "Dinov2Model",
            image_size=56,
            patch_size=14,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            mlp_ratio=2,
        ),
        image,
        SIZE,
        ("last_hidden_state", "pooler_output"),
        ("sdpa",),
        static=dict(h=56, w=56),
        traced=dict(h=56, w=84),
        second=dict(h=84, w=70),
    ),
    Case(
        "clip_vision",
        tf("CLIPVisionModelWithProjection", image_size=64, patch_size=16, projection_dim=24, **enc()),
        image,
        BATCH,
        ("image_embeds",),
        BOTH,
        **SQUARE,
    ),
    Case(
        "swin",
        tf(
            "SwinForImageClassification",
            image_size=64,
            patch_size=4,
            embed_dim=16,
            depths=[2, 2],
            num_heads=[2, 4],
            window_size=4,
            num_labels=10,
        ),
        image,
        SIZE,
        ("logits",),
        ("eager",),
        second=dict(h=80, w=56),
    ),
    Case(
        "swinv2",
        tf(
            "Swinv2ForImageClassification",
            image_size=64,
            patch_size=4,
            embed_dim=16,
            depths=[2, 2],
            num_heads=[2, 4],
            window_size=4,
            num_labels=10,
        ),
        image,
        BATCH,
        ("logits",),
        ("eager",),
        **SQUARE,
    ),
    Case(
        "segformer",
        tf(
            "SegformerForSemanticSegmentation",
            hidden_sizes=[16, 16, 32, 32],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=32,
            num_labels=5,
        ),
        image,
        SIZE,
        ("logits",),
    ),
    Case(
        "dpt",
        tf(
            "DPTForDepthEstimation",
            image_size=64,
            patch_size=16,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[16, 16, 32, 32],
            fusion_hidden_size=16,
            reassemble_factors=[4, 2, 1, 0.5],
            is_hybrid=False,
            **enc(num_hidden_layers=4),
        ),
        image,
        BATCH,
        ("predicted_depth",),
        BOTH,
        **SQUARE,
    ),
    Case(
        "depth_anything",
        tf(
            "DepthAnythingForDepthEstimation",
            patch_size=14,
            reassemble_hidden_size=32,
            neck_hidden_sizes=[16, 16, 32, 32],
            fusion_hidden_size=16,
            head_hidden_size=8,
            backbone_config=conf(
                "Dinov2Config",
                image_size=56,
                patch_size=14,
                hidden_size=32,
                num_hidden_layers=4,
                num_attention_heads=4,
                mlp_ratio=2,
                out_indices=[1, 2, 3, 4],
                reshape_hidden_states=False,
                apply_layernorm=True,
            ),
        ),
        image,
        SIZE,
        ("predicted_depth",),
        static=dict(h=56, w=56),
        traced=dict(h=56, w=84),
        second=dict(h=84, w=70),
    ),
    Case(
        "mobilevit_seg",
        tf(
            "MobileViTForSemanticSegmentation",
            image_size=64,
            hidden_sizes=[16, 24, 32],
            neck_hidden_sizes=[8, 16, 16, 24, 24, 32, 48],
            num_attention_heads=4,
            aspp_out_channels=16,
            atrous_rates=[1, 2, 3],
            num_labels=5,
        ),
        image,
        SIZE,
        ("logits",),
    ),
    Case(
        "mobilevit",
        tf(
            "MobileViTForImageClassification",
            image_size=64,
            hidden_sizes=[16, 24, 32],
            neck_hidden_sizes=[8, 16, 16, 24, 24, 32, 48],
            num_attention_heads=4,
            num_labels=10,
        ),
        image,
        SIZE,
        ("logits",),
    ),
    Case(
        "yolos",
        tf(
            "YolosForObjectDetection",
            image_size=[64, 64],
            patch_size=16,
            num_detection_tokens=10,
            num_labels=5,
            **enc(),
        ),
        image,
        SIZE,
        ("logits", "pred_boxes"),
        BOTH,
    ),
    Case(
        "detr",
        tf(
            "DetrForObjectDetection",
            use_timm_backbone=False,
            use_pretrained_backbone=False,
            backbone=None,
            backbone_config=resnet(out_features=["stage4"]),
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            num_queries=10,
            num_labels=5,
        ),
        image,
        SIZE,
        ("logits", "pred_boxes"),
        ("eager", "auto"),
    ),
    Case(
        "rtdetr",
        tf(
            "RTDetrForObjectDetection",
            d_model=32,
            encoder_hidden_dim=32,
            encoder_layers=1,
            encoder_in_channels=[32, 48, 64],
            encoder_ffn_dim=64,
            encoder_attention_heads=4,
            decoder_in_channels=[32, 32, 32],
            decoder_layers=2,
            decoder_attention_heads=4,
            decoder_ffn_dim=64,
            num_queries=10,
            num_labels=5,
            anchor_image_size=None,
            backbone_config=conf(
                "RTDetrResNetConfig",
                embedding_size=16,
                hidden_sizes=[16, 32, 48, 64],
                depths=[1, 1, 1, 1],
                layer_type="basic",
                out_features=["stage2", "stage3", "stage4"],
            ),
        ),
        image,
        SIZE,
        ("logits", "pred_boxes"),
    ),
    Case(
        "mask2former",
        tf(
            "Mask2FormerForUniversalSegmentation",
            feature_size=32,
            mask_feature_size=32,
            hidden_dim=32,
            encoder_feedforward_dim=64,
            dim_feedforward=64,
            encoder_layers=1,
            decoder_layers=2,
            num_attention_heads=4,
            num_queries=6,
            num_labels=5,
            backbone_config=conf(
                "SwinConfig",
                image_size=64,
                embed_dim=16,
                depths=[1, 1, 1, 1],
                num_heads=[1, 2, 4, 4],
                window_size=4,
                out_features=["stage1", "stage2", "stage3", "stage4"],
            ),
        ),
        image,
        BATCH,
        ("class_queries_logits", "masks_queries_logits"),
        ("eager",),
        **SQUARE,
    ),
    Case(
        "upernet_convnext",
        tf(
            "UperNetForSemanticSegmentation",
            hidden_size=16,
            num_labels=5,
            pool_scales=[1, 2, 3, 6],
            use_auxiliary_head=False,
            backbone_config=conf(
                "ConvNextConfig",
                hidden_sizes=[16, 24, 32, 48],
                depths=[1, 1, 1, 1],
                out_features=["stage1", "stage2", "stage3", "stage4"],
            ),
        ),
        image,
        SIZE,
        ("logits",),
    ),
    # ... the same with pools that divide every size, which the TorchScript exporter can write
    Case(
        "upernet_swin",
        tf(
            "UperNetForSemanticSegmentation",
            hidden_size=16,
            num_labels=5,
            pool_scales=[1, 2],
            use_auxiliary_head=False,
            backbone_config=conf(
                "SwinConfig",
                image_size=64,
                embed_dim=16,
                depths=[1, 1, 1, 1],
                num_heads=[1, 2, 4, 4],
                window_size=4,
                out_features=["stage1", "stage2", "stage3", "stage4"],
            ),
        ),
        image,
        SIZE,
        ("logits",),
        ("eager",),
    ),
    Case(
        "convnext",
        tf("ConvNextForImageClassification", hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 2, 1], num_labels=10),
        image,
        SIZE,
        ("logits",),
    ),
    Case(
        "resnet",
        tf(
            "ResNetForImageClassification",
            embedding_size=16,
            hidden_sizes=[16, 32, 48, 64],
            depths=[1, 1, 1, 1],
            layer_type="bottleneck",
            num_labels=10,
        ),
        image,
        SIZE,
        ("logits",),
    ),
    Case(
        "efficientnet",
        tf(
            "EfficientNetForImageClassification",
            image_size=64,
            width_coefficient=0.25,
            depth_coefficient=0.3,
            hidden_dim=320,
            num_labels=10,
        ),
        image,
        SIZE,
        ("logits",),
    ),
    Case(
        "mobilenet_v2",
        tf("MobileNetV2ForImageClassification", image_size=64, depth_multiplier=0.25, num_labels=10),
        image,
        SIZE,
        ("logits",),
    ),
    Case(
        "swin2sr",
        tf(
            "Swin2SRForImageSuperResolution",
            image_size=16,
            patch_size=1,
            embed_dim=16,
            depths=[2],
            num_heads=[2],
            window_size=4,
            upscale=2,
            upsampler="pixelshuffle",
        ),
        image,
        SIZE,
        ("reconstruction",),
        static=dict(h=16, w=16),
        traced=dict(h=16, w=24),
        second=dict(h=24, w=12),
    ),
    Case(
        "bert",
        tf("BertForSequenceClassification", vocab_size=100, num_labels=3, **enc()),
        typed_text,
        {**TOKENS, "token_type_ids": {0: "batch", 1: "sequence"}},
        ("logits",),
        BOTH,
    ),
    Case(
        "distilbert",
        tf(
            "DistilBertForTokenClassification",
            vocab_size=100,
            dim=32,
            n_layers=2,
            n_heads=4,
            hidden_dim=64,
            num_labels=5,
        ),
        text,
        TOKENS,
        ("logits",),
        BOTH,
    ),
    Case(
        "roberta",
        tf("RobertaForMaskedLM", vocab_size=100, max_position_embeddings=64, **enc()),
        text,
        TOKENS,
        ("logits",),
        ("sdpa",),
    ),
    Case(
        "deberta_v2",
        tf(
            "DebertaV2ForSequenceClassification",
            vocab_size=100,
            relative_attention=True,
            pos_att_type=["c2p", "p2c"],
            position_buckets=8,
            share_att_key=True,
            num_labels=3,
            norm_rel_ebd="layer_norm",
            **enc(),
        ),
        text,
        TOKENS,
        ("logits",),
    ),
    Case(
        "gpt2",
        tf("GPT2LMHeadModel", vocab_size=100, n_positions=64, n_embd=32, n_layer=2, n_head=4),
        text,
        TOKENS,
        ("logits",),
        BOTH,
        constants=dict(use_cache=False),
    ),
    Case(
        "llama",
        tf("LlamaForCausalLM", vocab_size=100, num_key_value_heads=2, max_position_embeddings=64, **enc()),
        text,
        TOKENS,
        ("logits",),
        BOTH,
        constants=dict(use_cache=False),
    ),
    Case(
        "t5_encoder",
        tf("T5EncoderModel", vocab_size=100, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4),
        text,
        TOKENS,
        ("last_hidden_state",),
        BOTH,
    ),
    Case(
        "t5",
        tf(
            "T5ForConditionalGeneration",
            vocab_size=100,
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            decoder_start_token_id=0,
        ),
        pair,
        {**TOKENS, "decoder_input_ids": {0: "batch"}},
        ("logits",),
        ("eager",),
        constants=dict(use_cache=False),
    ),
    Case(
        "clip",
        tf(
            "CLIPModel",
            projection_dim=24,
            text_config=lambda: enc(vocab_size=100, max_position_embeddings=32, eos_token_id=99),
            vision_config=lambda: enc(image_size=64, patch_size=16),
        ),
        image_text,
        {**BATCH, **TOKENS},
        ("logits_per_image", "text_embeds"),
        BOTH,
        **SQUARE,
    ),
    Case(
        "whisper_encoder",
        lambda attn: whisper_encoder(attn),
        mel,
        {"input_features": {0: "batch"}},
        ("last_hidden_state",),
        BOTH,
    ),
    Case(
        "wav2vec2",
        tf(
            "Wav2Vec2ForCTC",
            vocab_size=20,
            conv_dim=(16, 16, 16),
            conv_stride=(5, 2, 2),
            conv_kernel=(10, 3, 3),
            num_feat_extract_layers=3,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
            **enc(),
        ),
        wave,
        {"input_values": {0: "batch", 1: "samples"}},
        ("logits",),
        BOTH,
    ),
    Case(
        "ast",
        tf(
            "ASTForAudioClassification",
            max_length=40,
            num_mel_bins=16,
            patch_size=8,
            frequency_stride=4,
            time_stride=4,
            num_labels=10,
            **enc(),
        ),
        lambda n, **_: {"input_values": torch.randn(n, 40, 16, generator=rng())},
        {"input_values": {0: "batch"}},
        ("logits",),
        ("sdpa",),
    ),
]


def whisper_encoder(attn: str) -> nn.Module:
    import transformers

    conf = transformers.WhisperConfig(
        vocab_size=100,
        num_mel_bins=16,
        d_model=32,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_source_positions=20,
        max_target_positions=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    return transformers.WhisperModel._from_config(conf, attn_implementation=attn).encoder


def jobs(cases: list[Case]) -> list[tuple]:
    """(file stem, case, attention, exporter, dynamic, options) of every export."""
    return [
        (f"{c.name}__{attn}__{exporter}__{'dyn' if dynamic else 'st'}", c, attn, exporter, dynamic, {})
        for c in cases
        for attn in c.attn
        for exporter in ("ts", "dynamo")
        for dynamic in (False, True)
    ]


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def summary(error: Exception) -> str:
    """What an exception says, in a line. The dynamo exporter puts it after advice."""
    text = plain(str(error)).strip()
    lines = text.partition("## Exception summary")[2].strip() or text
    return " ".join(lines.split())[:250]


def run(todo: list[tuple], out: Path) -> None:
    """Exports every job, each in its own try. EXPORTED.tsv and FAILED.txt keep what they say of other exports."""
    warnings.simplefilter("ignore")
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    table, log = out / "EXPORTED.tsv", out / "FAILED.txt"
    rows = dict(line.split("\t", 1) for line in table.read_text().splitlines()[1:]) if table.exists() else {}
    failed = dict(b.split("\n", 1) for b in log.read_text().split("=== ")[1:]) if log.exists() else {}
    for stem, case, attn, exporter, dynamic, options in todo:
        path, start = out / f"{stem}.onnx", time.perf_counter()
        path.unlink(missing_ok=True)
        failed.pop(stem, None)
        try:
            note = f"max diff {export(case, attn, exporter, dynamic, path, **options):.2g}"
        except Exception as error:  # an exporter raises anything
            note = f"{'WRONG' if path.exists() else 'FAILED'}: {type(error).__name__}: {summary(error)}"
            failed[stem] = f"{note}\n{plain(traceback.format_exc())[-3000:].replace('=== ', '==')}\n"
        took = time.perf_counter() - start
        print(f"{stem:45} {took:6.1f}s  {note}", flush=True)
        rows[stem] = f"{took:.1f}\t{note}"
        table.write_text("export\tseconds\tagainst PyTorch\n" + "".join(f"{k}\t{v}\n" for k, v in rows.items()))
        log.write_text("".join(f"=== {k}\n{v}" for k, v in failed.items()))
    good = sum("max diff" in v for v in rows.values())
    print(f"{len(rows)} exports, {good} compared with PyTorch, {len(failed)} failed or wrong")


def main(todo: list[tuple], out: Path, doc: str | None = __doc__) -> None:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--only", default="", help="export only the files whose stem matches this regular expression")
    parser.add_argument("--list", action="store_true", help="print the stems and stop")
    args = parser.parse_args()
    todo = [job for job in todo if re.search(args.only, job[0])]
    if args.list:
        print(*(job[0] for job in todo), sep="\n")
    else:
        run(todo, args.out)


if __name__ == "__main__":
    main(jobs(CASES), Path(__file__).parent / "transformers")
