"""Versions of ONNX's operators in which a node that was valid before means the same, and why that is so."""

from __future__ import annotations

_SAME: tuple[tuple[int, str, str], ...] = (
    (8, "inputs may be broadcast", "Max Mean Min Sum"),
    (8, "a second output and storage_order, which is for it, are optional", "MaxPool"),
    (9, "more element types", "Cast Constant Flatten Gemm Greater Less MatMul PRelu"),
    (10, "ceil_mode is 0 and dilations are 1 unless given", "AveragePool MaxPool"),
    (
        11,
        "axes may count from the back",
        """ArgMax ArgMin Compress Concat Flatten Gather Hardmax LogSoftmax ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
        ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Scan Slice Softmax Split Squeeze
        Unsqueeze""",
    ),
    (11, "the text says what the defaults were", "AveragePool Conv LpPool MaxPool MaxUnpool NonMaxSuppression Loop"),
    (
        11,
        "the formula for odd padding, which contradicted the text of auto_pad, was put right; runtimes follow the text",
        "ConvTranspose",
    ),
    (11, "mode is DCR unless given, what it was", "DepthToSpace"),
    (11, "indices below zero, which were not allowed, count from the back", "OneHot"),
    (11, "largest and sorted are 1 unless given, what they were", "TopK"),
    (11, "C may be left out", "Gemm"),
    (11, "the branches may give different shapes", "If"),
    (11, "sparse_value may be given instead", "Constant"),
    (11, "more element types", "Equal"),
    (12, "more element types", "Clip Max MaxPool Min Pow ReduceMax ReduceMin"),
    (12, "select_last_index is 0 unless given", "ArgMax ArgMin"),
    (12, "value_int and others may be given instead", "Constant"),
    (12, "batch_dims is 0 unless given", "GatherND"),
    (
        13,
        "more element types",
        """Abs Add ArgMax ArgMin Cast Ceil Clip Concat Constant DepthToSpace Div Dropout Equal Exp Expand Flatten Floor
        Gather GatherElements GatherND Gemm Greater Identity If IsNaN LRN Less Log Loop MatMul Max Mean
        Min Mod Mul Neg NegativeLogLikelihoodLoss NonZero Pad Pow Reciprocal ReduceL1 ReduceL2
        ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare Relu Reshape
        ScatterElements ScatterND Shape Sigmoid Sign Size Slice SoftmaxCrossEntropyLoss SpaceToDepth Sqrt Sub Sum Tanh
        Tile Transpose""",
    ),
    (13, "axis is for scales that are vectors; they were numbers", "DequantizeLinear QuantizeLinear"),
    (14, "more element types", "Add CumSum Div Identity Mul Relu Sub"),
    (14, "layout is 0 unless given, what it was", "GRU LSTM RNN"),
    (14, "allowzero is 0 unless given", "Reshape"),
    (15, "more element types", "BatchNormalization Pow"),
    (15, "start and end span all axes unless given", "Shape"),
    (16, "more element types", "GreaterOrEqual Identity If LeakyRelu LessOrEqual Loop PRelu Scan Where"),
    (16, "reduction is none unless given", "ScatterElements ScatterND"),
    (18, "ceil_mode is 0 and dilations are 1 unless given", "LpPool"),
    (18, "tensors and sequences are taken too", "OptionalGetElement OptionalHasElement"),
    (18, "axes are all unless given", "Pad"),
    (18, "axes are all, antialias is 0 and keep_aspect_ratio_policy is stretch unless given", "Resize"),
    (18, "reduction may be max or min", "ScatterElements ScatterND"),
    (19, "more element types", "Constant DequantizeLinear Equal Identity If Loop Reshape Scan Shape Size"),
    (19, "saturate is for float8, which is new", "Cast CastLike QuantizeLinear"),
    (19, "mode may be wrap", "Pad"),
    (19, "coordinate_transformation_mode may be half_pixel_symmetric", "Resize"),
    (20, "more element types", "ConstantOfShape IsInf IsNaN ReduceMax ReduceMin"),
    (
        21,
        "more element types",
        """Cast CastLike Constant ConstantOfShape Flatten Identity If Loop Pad QLinearMatMul Reshape Scan Shape Size Squeeze
        Transpose Unsqueeze""",
    ),
    (21, "block_size is 0 unless given, and the zero point gives the type", "DequantizeLinear QuantizeLinear"),
    (
        22,
        "more element types",
        """Acos Acosh Asin Asinh Atan Atanh Bernoulli Conv ConvTranspose Cos Cosh DeformConv Det Dropout Elu EyeLike GRU
        GlobalAveragePool GlobalLpPool GlobalMaxPool GridSample HardSigmoid HardSwish InstanceNormalization LSTM
        LpNormalization LpPool MaxRoiPool MaxUnpool Mish Multinomial NegativeLogLikelihoodLoss RNN RandomNormal
        RandomNormalLike RandomUniform RandomUniformLike RoiAlign Round Selu Sin Sinh Softplus Softsign Tan
        ThresholdedRelu""",
    ),
    (
        23,
        "more element types",
        """Cast CastLike Constant ConstantOfShape Flatten Identity If Loop Pad Reshape Scan Shape Size Squeeze Transpose
        Unsqueeze""",
    ),
    (23, "the scale gives type and precision unless another is given", "DequantizeLinear QuantizeLinear"),
    (
        24,
        "more element types",
        """Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad QuantizeLinear Reshape Scan Shape Size
        SplitToSequence Squeeze TopK Transpose Unsqueeze""",
    ),
    (24, "nonpad_kv_seqlen may be given, and a mask may be shorter", "Attention"),
    (
        25,
        "more element types",
        """Cast CastLike Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad QuantizeLinear Reshape Scan
        Shape Size Squeeze Transpose Unsqueeze""",
    ),
    (25, "windows are open on both sides unless given", "Attention"),
    (27, "stash_type is for 16-bit types, which are new", "Range"),
    (
        28,
        "more element types",
        """Cast Celu Compress DepthToSpace DequantizeLinear Einsum OneHot Optional OptionalGetElement OptionalHasElement
        QuantizeLinear ReverseSequence Unique""",
    ),
    (28, "shifts by more than all bits, which were not defined, are", "BitShift"),
    (28, "floating-point numbers may have fmod 0", "Mod"),
    (28, "mode is DCR unless given, what it was", "SpaceToDepth"),
)

SAME: dict[tuple[str, int], str] = {(op, version): why for version, why, ops in _SAME for op in ops.split()}
"""(operator, version) → why a node of the version before means the same in this one."""
