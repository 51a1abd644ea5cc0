# Fake-quantised networks through `qcdq export --verify`: no code may differ, and ONNX Runtime (ORT)
# must turn the fully quantised ones into integer kernels.
import json

import onnx
import pytest
import torch

import models
from conftest import count_ops, ort_session, run_session
from test_export_models import export

FULLY_QUANTIZED = {"resnet18": (20, 8), "mobilenet_v2": (52, 10)}
SHORT = [
    ("resnet18", "script", "qcdq"),
    ("resnet18", "trace", "aten"),
    ("mobilenet_v2", "trace", "qcdq"),
    ("mobilenet_v2", "script", "aten_tensor"),
    ("squeezenet1_1", "script", "aten"),
]
ALL = [
    (name, form, quantizers)
    for name in models.NAMES
    for form in ("script", "trace")
    for quantizers in models.QUANTIZERS
]
CASES = SHORT + [pytest.param(*c, marks=pytest.mark.slow) for c in ALL if c not in SHORT]


@pytest.mark.parametrize("name, form, quantizers", CASES)
def test_quantized_model(qcdq, model_file, tmp_path, name, form, quantizers):
    path = model_file(name, form, quantizers)
    output = tmp_path / "model.onnx"
    result = export(qcdq, path, output, "--verify", "--json")
    assert result.returncode == 0, result.stderr
    verified = json.loads(result.stdout)["verify"]
    assert verified["ok"]
    assert verified["codes_compared"] > 100_000
    assert verified["codes_differing"] == 0

    model = onnx.load(str(output))
    onnx.checker.check_model(model, full_check=True)
    kinds = {i.name: i.data_type for i in model.graph.initializer}
    floats = {i.name for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            assert node.input[1] not in floats, f"{node.name} has a float weight"
    # Every weight is stored as int8 codes of the narrow range, every bias as int32.
    weights = [
        onnx.numpy_helper.to_array(i)
        for i in model.graph.initializer
        if i.data_type == onnx.TensorProto.INT8 and len(i.dims) > 1
    ]
    assert len(weights) == sum(n.op_type in ("Conv", "Gemm") for n in model.graph.node)
    assert min(w.min() for w in weights) == -127
    assert max(w.max() for w in weights) == 127
    assert onnx.TensorProto.INT32 in kinds.values()
    assert count_ops(output).get("BatchNormalization", 0) == 0
    # No two Q/DQ pairs share a scale or a zero point: session.x64quantprecision=1 needs that.
    pairs = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            for parameter in node.input[1:]:
                assert pairs.setdefault(parameter, node.name) == node.name

    reference = torch.jit.load(str(path))
    batches = []
    for batch in (1, 2):
        x = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            batches.append((x, reference(x)))
    for optimize in (False, True):
        session = ort_session(output, optimize=optimize)
        for x, expected in batches:
            (actual,) = run_session(session, x)
            assert actual.shape == expected.shape
            cosine = torch.nn.functional.cosine_similarity(expected, actual).min()
            assert cosine > 0.999, f"optimize={optimize}, batch {len(x)}"


@pytest.mark.parametrize("form", ["script", "trace"])
@pytest.mark.parametrize("name", FULLY_QUANTIZED)
def test_ort_runs_integer_kernels(qcdq, model_file, tmp_path, name, form):
    output = tmp_path / "model.onnx"
    result = export(qcdq, model_file(name, form, "qcdq"), output)
    assert result.returncode == 0, result.stderr
    optimized = tmp_path / "optimised.onnx"
    ort_session(output, optimized_path=optimized, exact=False)
    counts = count_ops(optimized)
    convs, adds = FULLY_QUANTIZED[name]
    assert counts.get("QLinearConv") == convs, counts
    assert counts.get("QLinearAdd") == adds, counts
    assert not {"Conv", "FusedConv", "Add", "Relu", "Clip"} & counts.keys(), counts


@pytest.mark.parametrize("storage", ["auto", "signed", "unsigned"])
def test_activation_storage(qcdq, model_file, tmp_path, storage):
    output = tmp_path / "model.onnx"
    result = export(
        qcdq,
        model_file("resnet18", "script", "qcdq"),
        output,
        "--activation-storage",
        storage,
        "--verify",
    )
    assert result.returncode == 0, result.stderr
    graph = onnx.load(str(output)).graph
    kinds = {i.name: i.data_type for i in graph.initializer}
    stored = {kinds[n.input[2]] for n in graph.node if n.op_type == "QuantizeLinear"}
    signed = onnx.TensorProto.INT8
    assert (signed in stored) == (storage == "signed")


@pytest.mark.parametrize("weights", ["int", "qdq"])
def test_weight_form(qcdq, model_file, tmp_path, weights):
    output = tmp_path / "model.onnx"
    result = export(
        qcdq, model_file("resnet18", "trace", "qcdq"), output, "--weights", weights, "--verify"
    )
    assert result.returncode == 0, result.stderr
    counts = count_ops(output)
    quantizers = 31  # of activations
    assert counts["QuantizeLinear"] == quantizers + (21 if weights == "qdq" else 0)


@pytest.mark.parametrize("storage", ["int8", "uint8"])
def test_weight_storage(qcdq, model_file, tmp_path, storage):
    output = tmp_path / "model.onnx"
    result = export(
        qcdq,
        model_file("mobilenet_v2", "script", "qcdq"),
        output,
        "--weight-storage",
        storage,
        "--verify",
    )
    assert result.returncode == 0, result.stderr
    kinds = [i.data_type for i in onnx.load(str(output)).graph.initializer if len(i.dims) > 1]
    wanted = onnx.TensorProto.INT8 if storage == "int8" else onnx.TensorProto.UINT8
    assert kinds.count(wanted) == 53


@pytest.mark.slow
@pytest.mark.parametrize("opset", range(13, 27))
def test_every_opset_quantized(qcdq, model_file, tmp_path, opset):
    output = tmp_path / "model.onnx"
    result = export(
        qcdq, model_file("resnet18", "script", "qcdq"), output, "--opset", opset, "--verify"
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("form", ["script", "trace"])
def test_names_of_a_quantized_model(qcdq, model_file, tmp_path, form):
    """A weight that is quantised at every forward still gives its layer its name."""
    output = tmp_path / "model.onnx"
    result = export(qcdq, model_file("mobilenet_v2", form, "qcdq"), output)
    assert result.returncode == 0, result.stderr
    names = {node.name for node in onnx.load(str(output)).graph.node}
    assert {"features.0.0/Conv", "features.1.conv.0.0/Conv", "classifier.1/Gemm"} <= names
