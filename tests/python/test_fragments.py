# The quantisers' nodes as data, through the registered ops that Python replays: what they hold for
# constant and for run-time scales, and the words of every refusal.
# Code under test: symbolic/quantizer/nodes.cpp, symbolic/python_ops.cpp, python/qcdq/_fragments.py.
import json

import numpy
import onnx
import onnxruntime
import pytest
import torch

import qcdq
from qcdq._fragments import Operand, dynamic_quant_fragment, onnx_dtype, quant_fragment

F32, F16, F64 = (onnx_dtype(d) for d in (torch.float32, torch.float16, torch.float64))
I32, U8, I8 = (onnx_dtype(d) for d in (torch.int32, torch.uint8, torch.int8))


def constants(scale, zero_point):
    return (
        Operand(F32, (), torch.as_tensor(scale)),
        Operand(I32, (), torch.as_tensor(zero_point, dtype=torch.int32)),
    )


def fragment(scale=0.5, zero_point=0, op="qcdq::fake_quantize", shape=(2, 3), **keywords):
    keywords.setdefault("opset", 21)
    keywords.setdefault("quant_min", -8)
    keywords.setdefault("quant_max", 7)
    x = Operand(keywords.pop("x_dtype", F32), shape)
    return quant_fragment(op, x, *constants(scale, zero_point), **keywords)


def ops(made):
    return [node["op"] for node in made.nodes]


def constant(made, node, index):
    return made.constants[made.nodes[node]["inputs"][index]["constant"]]


def test_activation_is_uint8_with_its_range_at_zero():
    made = fragment(zero_point=1)
    assert ops(made) == ["QuantizeLinear", "Clip", "DequantizeLinear"]
    assert constant(made, 0, 2).item() == 9
    assert constant(made, 0, 2).dtype == torch.uint8
    assert [constant(made, 1, i).item() for i in (1, 2)] == [0, 15]
    assert made.nodes[2]["inputs"][0] == made.nodes[1]["results"][0]


def test_weight_keeps_its_codes():
    made = fragment(is_weight=True)
    assert ops(made) == ["QuantizeLinear", "Clip", "DequantizeLinear"]
    assert constant(made, 0, 2).dtype == torch.int8
    assert [constant(made, 1, i).item() for i in (1, 2)] == [-8, 7]


def test_signed_activations():
    made = fragment(signed_activations=True)
    assert constant(made, 0, 2).dtype == torch.int8


def test_full_range_has_no_clip():
    assert ops(fragment(quant_min=-128, quant_max=127)) == ["QuantizeLinear", "DequantizeLinear"]


def test_old_opsets_clip_in_float():
    made = fragment(opset=10)
    assert ops(made) == ["Clip", "QuantizeLinear", "DequantizeLinear"]
    assert made.nodes[0]["attributes"] == {"min": -4.0, "max": 3.5}


def test_half_precision_is_cast():
    made = fragment(x_dtype=F16)
    assert ops(made) == ["Cast", "QuantizeLinear", "Clip", "DequantizeLinear", "Cast"]
    assert made.nodes[-1]["attributes"] == {"to": F16}


def test_axis_and_blocks_are_attributes():
    scale, zero = torch.ones(2, 2), torch.zeros(2, 2)
    made = quant_fragment(
        "qcdq::fake_quantize",
        Operand(F32, (2, 3)),
        Operand(F32, (2, 2), scale),
        Operand(I32, (2, 2), zero.int()),
        opset=21,
        quant_min=-128,
        quant_max=127,
        axis=-1,
        block_size=2,
    )
    assert made.nodes[0]["attributes"] == {"axis": 1, "block_size": 2}


def replayed(made, feeds, opset, result_type=onnx.TensorProto.FLOAT):
    """Runs a fragment in ORT by itself."""
    nodes, initializers = [], []

    def add_constant(tensor):
        name = f"constant_{len(initializers)}"
        initializers.append(onnx.numpy_helper.from_array(tensor.numpy(), name))
        return name

    def add_node(op, inputs, attributes, count):
        results = [f"value_{len(nodes)}_{i}" for i in range(count)]
        nodes.append(onnx.helper.make_node(op, inputs, results, **attributes))
        return results

    results = made.replay({name: name for name in feeds}, add_constant, add_node)
    graph = onnx.helper.make_graph(
        nodes,
        "fragment",
        [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            )
            for name, value in feeds.items()
        ],
        [onnx.helper.make_tensor_value_info(r, result_type, None) for r in results],
        initializers,
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8
    )
    if opset >= 21:
        model.ir_version = 10
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


@pytest.mark.parametrize("opset", [10, 11, 12, 13, 17, 21])
@pytest.mark.parametrize("is_weight", [False, True])
@pytest.mark.parametrize(
    ("low", "high", "scale_shape", "axis", "zero"),
    [
        (-8, 7, (), None, -3),
        (-8, 7, (1,), None, 5),
        (0, 15, (1, 1), None, 2),
        (-128, 127, (), None, 0),
        (-127, 127, (3,), 1, 0),
        (-4, 3, (3,), 1, 1),
        (-1000, 1000, (3,), 1, 7),
        (-(2**31), 2**31 - 1, (), None, 0),
        (-(2**23), 2**23 - 1, (3,), 1, 4),
    ],
)
def test_run_time_scales_give_the_same_values(opset, is_weight, low, high, scale_shape, axis, zero):
    torch.manual_seed(1)
    wide = high - low > 65535
    if axis is not None and opset < 13:
        pytest.skip("per channel from opset 13 on")
    if high - low > 255 and (opset < 21 and not (is_weight and opset >= 11)):
        pytest.skip("16 bits from opset 21 on")
    if wide and not is_weight:
        pytest.skip("no such activation")
    x = torch.randn(4, 3, 5) * 30
    x[0, 0] = torch.tensor([0.0, -0.0, 1e30, -1e30, 0.125])
    scale = (torch.rand(scale_shape) + 0.25) * (1e-6 if wide else 1)
    if wide:
        x = x.clamp(-1e3, 1e3)
    zero_point = torch.full(scale_shape, zero, dtype=torch.int32)
    made = quant_fragment(
        "qcdq::fake_quantize",
        Operand(F32, tuple(x.shape)),
        Operand(F32, scale_shape),
        Operand(I32, scale_shape),
        opset=opset,
        quant_min=low,
        quant_max=high,
        axis=axis,
        is_weight=is_weight,
    )
    feeds = {"x": x.numpy(), "scale": scale.numpy(), "zero_point": zero_point.numpy()}
    [actual] = replayed(made, feeds, opset)
    expected = qcdq.fake_quantize(x, scale, zero_point, low, high, axis=axis)
    tolerance = 2e-7 if wide else 0
    torch.testing.assert_close(torch.from_numpy(actual), expected, rtol=tolerance, atol=0)


def test_learned_zero_point_is_rounded_and_clamped():
    x = torch.linspace(-8, 8, 33)
    for zero_point in (1.5, 2.5, -100.0, 100.0):
        given = torch.tensor(zero_point)
        made = quant_fragment(
            "qcdq::fake_quantize_learned",
            Operand(F32, (33,)),
            Operand(F32, ()),
            Operand(F32, ()),
            opset=21,
            quant_min=-8,
            quant_max=7,
        )
        feeds = {
            "x": x.numpy(),
            "scale": numpy.array(0.5, numpy.float32),
            "zero_point": given.numpy(),
        }
        expected = qcdq.fake_quantize_learned(x, torch.tensor(0.5), given, -8, 7)
        assert torch.equal(torch.from_numpy(replayed(made, feeds, 21)[0]), expected)
        as_constants = quant_fragment(
            "qcdq::fake_quantize_learned",
            Operand(F32, (33,)),
            Operand(F32, (), torch.tensor(0.5)),
            Operand(F32, (), given),
            opset=21,
            quant_min=-8,
            quant_max=7,
        )
        again = replayed(as_constants, {"x": x.numpy()}, 21)[0]
        assert torch.equal(torch.from_numpy(again), expected)


def test_quantize_and_dequantize():
    made = fragment(op="qcdq::quantize", dtype=I8)
    assert ops(made) == ["QuantizeLinear", "Clip"]
    made = fragment(op="qcdq::dequantize", x_dtype=U8, dtype=F16)
    assert ops(made) == ["DequantizeLinear", "Cast"]
    assert ops(fragment(op="qcdq::quantize", dtype=I32)) == ["QuantizeLinear", "Clip", "Cast"]


def test_dynamic_quantization():
    made = dynamic_quant_fragment("qcdq::fake_quantize_dynamic", Operand(F32), 0, 255, opset=11)
    assert ops(made) == ["DynamicQuantizeLinear", "DequantizeLinear"]
    made = dynamic_quant_fragment("qcdq::choose_qparams", Operand(F32), 0, 255, opset=11)
    assert ops(made) == ["DynamicQuantizeLinear", "Cast"]
    assert made.results == ["y_scale", "zero_point_i32"]


REFUSALS = [
    ({"x_dtype": F64}, "argument 'x' = float64: ONNX has no 64-bit QuantizeLinear"),
    ({"x_dtype": I32}, "argument 'x' = int32: only floating tensors are quantised"),
    ({"scale": 0.0}, "argument 'scale' = 0: expected a finite float32 > 0"),
    ({"scale": float("nan")}, "argument 'scale' = nan: expected a finite float32 > 0"),
    ({"scale": [1.0, 2.0]}, "argument 'scale' = 2 elements: expected one"),
    ({"zero_point": 8}, "argument 'zero_point' = 8: expected an integer in [-8, 7]"),
    (
        {"zero_point": [0, 0]},
        "argument 'zero_point' = 2 elements: expected as many as scale has, 1",
    ),
    ({"quant_min": 7}, "argument 'quant_min' = 7: expected less than quant_max = 7"),
    ({"quant_max": 2**31}, "argument 'quant_max' = 2147483648: codes have at most 32 bits"),
    ({"quant_max": 2**20}, "has no QuantizeLinear type (opset 21); leave it in float"),
    ({"quant_max": 999, "opset": 20}, "codes of more than 8 bits need opset 21 (opset 20)"),
    ({"axis": 0, "opset": 12}, "argument 'axis' = 0: per-channel scales need opset 13 (opset 12)"),
    ({"axis": 2}, "argument 'axis' = 2: the tensor has 2 dimensions"),
    ({"axis": -1, "shape": None}, "argument 'axis' = -1: a negative axis of a tensor of unknown"),
    ({"axis": 0, "scale": [1.0, 1.0, 1.0]}, "argument 'scale' = 3 elements: axis 0 has 2 channels"),
    ({"axis": 0, "scale": [[1.0], [1.0]]}, "argument 'scale' = 2 dimensions: expected one scale"),
    ({"axis": 0, "block_size": 2}, "argument 'scale' = 0 dimensions: expected the shape of x with"),
    (
        {"axis": 0, "block_size": 2, "opset": 20, "scale": [[1.0, 1.0, 1.0]]},
        "blocked scales need opset 21 (opset 20)",
    ),
    ({"op": "qcdq::nothing"}, "quant_fragment: op = qcdq::nothing, expected qcdq::quantize"),
    (
        {"op": "qcdq::quantize", "dtype": I8, "quant_max": 200},
        "argument 'quant_max' = [-8, 200]: outside the codes' type int8",
    ),
    ({"op": "qcdq::quantize", "dtype": I32, "quant_max": 2**20}, "more than 16 bits"),
    (
        {"op": "qcdq::quantize", "dtype": I32, "quant_min": -200, "quant_max": 0, "opset": 20},
        "codes [-200, 0] fit no type of QuantizeLinear",
    ),
    (
        {"op": "qcdq::dequantize", "x_dtype": U8, "zero_point": -1},
        "argument 'zero_point' = -1: outside the codes' type uint8",
    ),
]


@pytest.mark.parametrize(("keywords", "message"), REFUSALS)
def test_refusals(keywords, message):
    with pytest.raises(ValueError) as caught:
        fragment(**keywords)
    assert message in str(caught.value)


def test_onnx_dtype_is_the_number_of_tensor_proto():
    numbers = {
        torch.float32: "FLOAT",
        torch.float16: "FLOAT16",
        torch.bfloat16: "BFLOAT16",
        torch.float64: "DOUBLE",
        torch.uint8: "UINT8",
        torch.int8: "INT8",
        torch.uint16: "UINT16",
        torch.int16: "INT16",
        torch.int32: "INT32",
        torch.int64: "INT64",
        torch.bool: "BOOL",
        torch.complex64: "UNDEFINED",
    }
    for dtype, name in numbers.items():
        assert onnx_dtype(dtype) == onnx.TensorProto.DataType.Value(name), dtype
    # As a TorchScript graph has them: c10::ScalarType's numbers of uint8, float and uint16.
    assert [onnx_dtype(number) for number in (0, 6, 27)] == [U8, F32, onnx.TensorProto.UINT16]


DYNAMIC_REQUEST = {
    "op": "qcdq::choose_qparams",
    "x": {"dtype": 1, "shape": [2, 3]},
    "quant_min": 0,
    "quant_max": 255,
    "symmetric": False,
    "axis": None,
    "block_size": None,
    "opset": 21,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 3}, "dynamic_quant_fragment: unknown argument colour"),
        ({"opset": "21"}, "dynamic_quant_fragment: opset = '21', expected an int"),
        ({"opset": 21.5}, "dynamic_quant_fragment: opset = 21.5, expected an int"),
        ({"axis": "last"}, "dynamic_quant_fragment: axis = 'last', expected an int or None"),
        ({"symmetric": 1}, "dynamic_quant_fragment: symmetric = 1, expected a bool"),
        ({"x": {"dtype": 1}}, "dynamic_quant_fragment: shape is missing"),
        ({"x": {"dtype": 1, "shape": ["N"]}}, "expected a shape of ints"),
        ({"x": {"dtype": 1, "shape": None, "rank": 2}}, "unknown argument rank"),
    ],
)
def test_requests_go_by_names(changes, message):
    torch.ops.qcdq_onnx.dynamic_quant_fragment(json.dumps(DYNAMIC_REQUEST))
    with pytest.raises(ValueError) as caught:
        torch.ops.qcdq_onnx.dynamic_quant_fragment(json.dumps(DYNAMIC_REQUEST | changes))
    assert message in str(caught.value)


def test_a_request_without_one_of_its_members_is_refused():
    for name in DYNAMIC_REQUEST:
        rest = {key: value for key, value in DYNAMIC_REQUEST.items() if key != name}
        with pytest.raises(ValueError, match=f"dynamic_quant_fragment: {name} is missing"):
            torch.ops.qcdq_onnx.dynamic_quant_fragment(json.dumps(rest))


@pytest.mark.parametrize(
    ("low", "high", "keywords", "message"),
    [
        (0, 15, {}, "argument 'quant_max' = 15: ONNX quantises dynamically to [0, 255] only"),
        (
            0,
            255,
            {"symmetric": True},
            "argument 'symmetric' = True: ONNX quantises dynamically with",
        ),
        (0, 255, {"axis": 0}, "argument 'axis' = 0: ONNX quantises dynamically per tensor only"),
        (0, 255, {"opset": 10}, "DynamicQuantizeLinear needs opset 11"),
    ],
)
def test_dynamic_refusals(low, high, keywords, message):
    keywords.setdefault("opset", 21)
    with pytest.raises(ValueError) as caught:
        dynamic_quant_fragment("qcdq::fake_quantize_dynamic", Operand(F32), low, high, **keywords)
    assert message in str(caught.value)
