"""The ops library from Python: opcheck of every op, TorchScript, torch.export, torch.compile's
tracing, and ONNX Runtime as an independent judge of the codes. C++ tests have the full sweeps."""

import io
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.library import opcheck

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = os.environ.get("QCDQ_OPS_LIBRARY", str(ROOT / "build" / "lib" / "libqcdq_ops.so"))
torch.ops.load_library(LIBRARY)
ops = torch.ops.qcdq

# What the tests below give as (axis, block_size) for x of shape [4, 6].
GRANULARITIES = [(None, None), (0, None), (-1, None), (0, 3), (-1, 4)]
FLOAT_TYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def param_shape(axis, block_size):
    shape = [4, 6]
    if axis is None:
        return []
    if block_size is None:
        return [shape[axis]]
    shape[axis] = -(-shape[axis] // block_size)
    return shape


def qparams(axis, block_size, zero_point_type=torch.int32):
    shape = param_shape(axis, block_size)
    return torch.rand(shape) * 0.1 + 0.05, torch.randint(-2, 3, shape).to(zero_point_type)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=GRANULARITIES, ids=str)
def granularity(request):
    axis, block_size = request.param
    return {"axis": axis, "block_size": block_size}


@pytest.fixture(params=FLOAT_TYPES, ids=str)
def x(request):
    return torch.randn(4, 6).to(request.param)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32], ids=str)
def test_opcheck_quantize(x, granularity, dtype):
    args = (x, *qparams(**granularity), -8, 7)
    opcheck(ops.quantize.default, args, {**granularity, "dtype": dtype})


@pytest.mark.parametrize("dtype", [None, *FLOAT_TYPES], ids=str)
def test_opcheck_dequantize(granularity, dtype):
    q = torch.randint(-8, 8, (4, 6), dtype=torch.int8)
    opcheck(ops.dequantize.default, (q, *qparams(**granularity)), {**granularity, "dtype": dtype})


@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck_fake_quantize(x, granularity, requires_grad):
    args = (x.requires_grad_(requires_grad), *qparams(**granularity), -8, 7)
    opcheck(ops.fake_quantize.default, args, granularity)


@pytest.mark.parametrize("zero_point_type", [torch.float32, torch.int32], ids=str)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck_fake_quantize_learned(x, granularity, requires_grad, zero_point_type):
    scale, zero_point = qparams(**granularity, zero_point_type=zero_point_type)
    scale.requires_grad_(requires_grad)
    if zero_point.is_floating_point():
        zero_point.requires_grad_(requires_grad)
    args = (x.requires_grad_(requires_grad), scale, zero_point, -8, 7)
    opcheck(ops.fake_quantize_learned.default, args, {**granularity, "grad_factor": 0.5})


@pytest.mark.parametrize("symmetric", [False, True])
def test_opcheck_choose_qparams(x, granularity, symmetric):
    opcheck(ops.choose_qparams.default, (x, -8, 7), {**granularity, "symmetric": symmetric})


@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck_fake_quantize_dynamic(x, granularity, requires_grad):
    opcheck(
        ops.fake_quantize_dynamic.default, (x.requires_grad_(requires_grad), 0, 255), granularity
    )


def test_opcheck_backward_ops(x, granularity):
    args = (torch.randn_like(x), x, *qparams(**granularity), -8, 7)
    opcheck(ops.fake_quantize_backward.default, args, granularity)
    opcheck(ops.fake_quantize_learned_backward.default, args, {**granularity, "grad_factor": 0.5})


def test_opcheck_other_strides(granularity):
    args = (torch.randn(6, 4).t().requires_grad_(), *qparams(**granularity), -8, 7)
    opcheck(ops.fake_quantize.default, args, granularity)
    channels_last = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    args = (channels_last.requires_grad_(), torch.rand(3) + 0.1, torch.zeros(3, dtype=torch.int32))
    opcheck(ops.fake_quantize.default, (*args, -8, 7), {"axis": 1})
    opcheck(ops.fake_quantize_learned.default, (*args, -8, 7), {"axis": 1})


def test_errors_are_value_errors():
    with pytest.raises(ValueError, match=r"qcdq::fake_quantize: quant_min is 7, expected"):
        ops.fake_quantize(torch.ones(2), torch.ones(1), torch.zeros(1, dtype=torch.int32), 7, 7)


class Quantized(torch.nn.Module):
    """One call of every op, with keyword arguments and their defaults."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor([0.05, 0.1, 0.2, 0.3]))
        self.register_buffer("zero_point", torch.tensor([0, 1, 2, 3], dtype=torch.int32))

    def forward(self, x):
        y = torch.ops.qcdq.fake_quantize(x, self.scale, self.zero_point, -8, 7, axis=0)
        q = torch.ops.qcdq.quantize(y, self.scale, self.zero_point, -8, 7, dtype=torch.int8, axis=0)
        y = torch.ops.qcdq.dequantize(q, self.scale, self.zero_point, axis=0)
        y = torch.ops.qcdq.fake_quantize_learned(y, self.scale, self.zero_point, -8, 7, axis=0)
        scale, zero_point = torch.ops.qcdq.choose_qparams(y, 0, 255)
        y = torch.ops.qcdq.fake_quantize(y, scale, zero_point, 0, 255)
        return torch.ops.qcdq.fake_quantize_dynamic(y, 0, 255)


NAMES = (
    "fake_quantize",
    "quantize",
    "dequantize",
    "fake_quantize_learned",
    "choose_qparams",
    "fake_quantize_dynamic",
)


def op_names(text):
    return {name for name in NAMES if f"qcdq::{name}(" in text}


@pytest.mark.parametrize("make", ["script", "trace"])
def test_torchscript_keeps_the_ops(make):
    model, x = Quantized().eval(), torch.randn(4, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        jit = torch.jit.script(model) if make == "script" else torch.jit.trace(model, x)
        file = io.BytesIO()
        torch.jit.save(jit, file)
        file.seek(0)
        loaded = torch.jit.load(file)
    assert len(op_names(str(loaded.inlined_graph))) == 6
    assert torch.equal(loaded(x), model(x))


def test_export_keeps_the_ops_and_the_dynamic_axis():
    model, x = Quantized().eval(), torch.randn(4, 6)
    dynamic = ({1: torch.export.Dim("n", min=2)},)
    program = torch.export.export(model, (x,), dynamic_shapes=dynamic).run_decompositions()
    targets = {str(n.target) for n in program.graph.nodes if n.op == "call_function"}
    assert {t for t in targets if t.startswith("qcdq.")} == {
        f"qcdq.{name}.default" for name in NAMES
    }
    wider = torch.randn(4, 9)
    assert torch.equal(program.module()(wider), model(wider))


def test_compile_trains():
    weight = torch.randn(8, 6, requires_grad=True)
    scale = torch.full((8,), 0.1, requires_grad=True)
    zero_point = torch.zeros(8, dtype=torch.int32)

    def loss(x):
        return (x @ ops.fake_quantize_learned(weight, scale, zero_point, -8, 7, axis=0).t()).sum()

    x = torch.randn(3, 6)
    loss(x).backward()
    eager = weight.grad.clone(), scale.grad.clone()
    weight.grad = scale.grad = None
    torch.compile(loss, backend="aot_eager", fullgraph=True)(x).backward()
    assert torch.equal(weight.grad, eager[0])
    assert torch.equal(scale.grad, eager[1])


def run_in_ort(op_type, inputs, outputs, opset=21):
    onnx = pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    names = [f"i{i}" for i in range(len(inputs))]
    to_type = onnx.helper.np_dtype_to_tensor_dtype
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op_type, names, list(outputs))],
        "g",
        [
            onnx.helper.make_tensor_value_info(n, to_type(v.dtype), v.shape)
            for n, v in zip(names, inputs, strict=True)
        ],
        [
            onnx.helper.make_tensor_value_info(n, to_type(np.dtype(t)), None)
            for n, t in outputs.items()
        ],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(names, inputs, strict=True)))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.uint16], ids=str)
@pytest.mark.parametrize("scale", [0.1, 0.0123, 0.0021485, 1.0])
def test_codes_and_values_equal_ort(dtype, scale):
    info = torch.iinfo(dtype)
    zero_point = 3
    # Every tie of the range, its neighbours, values past the range, then random ones.
    ties = (
        np.arange(info.min - 3, info.max + 3)[:: max(1, (info.max - info.min) // 4000)]
        - zero_point
        + 0.5
    ).astype(np.float32) * np.float32(scale)
    random = (np.random.default_rng(0).normal(size=20000) * scale * 60).astype(np.float32)
    edges = np.array([0.0, -0.0, 1e-40, np.inf, -np.inf, 3e38, -3e38], dtype=np.float32)
    x = np.concatenate(
        [
            ties,
            np.nextafter(ties, np.float32(np.inf)),
            np.nextafter(ties, np.float32(-np.inf)),
            random,
            edges,
        ]
    )
    ours = ops.quantize(
        torch.from_numpy(x),
        torch.tensor(scale),
        torch.tensor(zero_point),
        info.min,
        info.max,
        dtype=dtype,
    )
    s = np.float32(scale)
    z = np.array(zero_point, dtype=torch.empty(0, dtype=dtype).numpy().dtype)
    (codes,) = run_in_ort("QuantizeLinear", [x, np.array(s), z], {"y": z.dtype})
    assert np.count_nonzero(codes != ours.numpy()) == 0
    (values,) = run_in_ort("DequantizeLinear", [codes, np.array(s), z], {"y": np.float32})
    assert np.array_equal(
        values, ops.dequantize(ours, torch.tensor(scale), torch.tensor(zero_point)).numpy()
    )


@pytest.mark.parametrize("low, high", [(-1.0, 3.0), (0.0, 2.0), (-5.0, -1.0), (0.0, 0.0)])
def test_choose_qparams_equals_dynamic_quantize_linear(low, high):
    x = np.random.default_rng(0).uniform(low, high, size=1000).astype(np.float32)
    codes, scale, zero_point = run_in_ort(
        "DynamicQuantizeLinear", [x], {"y": np.uint8, "s": np.float32, "z": np.uint8}
    )
    ours_scale, ours_zero_point = ops.choose_qparams(torch.from_numpy(x), 0, 255)
    assert ours_scale.item() == scale
    assert ours_zero_point.item() == zero_point
    ours = ops.quantize(torch.from_numpy(x), ours_scale, ours_zero_point, 0, 255, dtype=torch.uint8)
    assert np.array_equal(ours.numpy(), codes)


@pytest.mark.parametrize(
    "load", ["import ctypes; ctypes.CDLL(library)", "torch.ops.load_library(library)"]
)
def test_library_loads_by_dlopen_and_by_torch(load):
    code = (
        f"import sys, torch; library = sys.argv[1]; {load}; "
        "print(torch.ops.qcdq.fake_quantize(torch.tensor([1.26]), torch.tensor(0.5), "
        "torch.tensor(0), -8, 7).item())"
    )
    done = subprocess.run([sys.executable, "-c", code, LIBRARY], capture_output=True, text=True)
    assert done.stdout.strip() == "1.5", done.stderr
