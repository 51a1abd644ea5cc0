# The five float networks, scripted and traced, through `qcdq export --verify`, and once more
# through onnx's checker and ONNX Runtime from Python, at two batch sizes.
import json

import onnx
import pytest
import torch

import models
from conftest import count_ops, ort_session, relative_difference, run_ort, run_session

NODES = {  # nodes that a name and an op of the torch model promise
    "resnet18": {"Conv": 20, "Relu": 17, "Add": 8, "MaxPool": 1, "Gemm": 1},
    "resnet50": {"Conv": 53, "Relu": 49, "Add": 16, "MaxPool": 1, "Gemm": 1},
    "mobilenet_v2": {"Conv": 52, "Clip": 35, "Add": 10, "Gemm": 1},
    "vgg11": {"Conv": 8, "Relu": 10, "MaxPool": 5, "Gemm": 3},
    "squeezenet1_1": {"Conv": 26, "Relu": 26, "MaxPool": 3, "Concat": 8},
}
SPEC = "x=f32[1,3,224,224]"


def export(qcdq, model, output, *arguments):
    return qcdq("export", model, "-o", output, "--input", SPEC, "--dynamic", "x:0=N", *arguments)


@pytest.mark.parametrize("form", ["script", "trace"])
@pytest.mark.parametrize("name", models.NAMES)
def test_float_model(qcdq, model_file, tmp_path, name, form):
    path = model_file(name, form)
    output = tmp_path / "model.onnx"
    result = export(qcdq, path, output, "--verify", "--json")
    assert result.returncode == 0, result.stderr
    verified = json.loads(result.stdout)["verify"]
    assert verified["ok"]
    assert verified["max_relative"] < 1e-4

    onnx.checker.check_model(str(output), full_check=True)
    counts = count_ops(output)
    assert {op: counts.get(op, 0) for op in NODES[name]} == NODES[name]
    assert "BatchNormalization" not in counts  # folded into the Conv

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
            assert relative_difference(expected, actual) < 1e-4
    output.unlink()  # 500 MB for vgg11


@pytest.mark.parametrize("form", ["script", "trace"])
def test_names_follow_the_module_path(qcdq, model_file, tmp_path, form):
    output = tmp_path / "model.onnx"
    result = export(qcdq, model_file("resnet18", form), output)
    assert result.returncode == 0, result.stderr
    graph = onnx.load(str(output)).graph
    names = {node.name for node in graph.node}
    for expected in ("conv1/Conv", "layer1.0.conv1/Conv", "layer4.1.conv2/Conv", "fc/Gemm"):
        assert expected in names, sorted(names)
    assert "layer2.0.downsample.0/Conv" in names
    assert [i.name for i in graph.input] == ["x"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert [o.name for o in graph.output] == ["output"]
    assert graph.output[0].type.tensor_type.shape.dim[0].dim_param == "N"
    # An initializer that is also an input can be overridden, so ORT would not treat it as constant.
    assert not {i.name for i in graph.input} & {i.name for i in graph.initializer}
    model = onnx.load(str(output), load_external_data=False)
    assert model.producer_name == "qcdq"
    assert model.producer_version


@pytest.mark.parametrize("opset", [10, 13, 17, 21, 26])
def test_opsets(qcdq, model_file, tmp_path, opset):
    path = model_file("squeezenet1_1", "trace")
    output = tmp_path / "model.onnx"
    result = export(qcdq, path, output, "--opset", opset, "--verify")
    assert result.returncode == 0, result.stderr
    model = onnx.load(str(output))
    assert [(o.domain, o.version) for o in model.opset_import] == [("", opset)]
    onnx.checker.check_model(model, full_check=True)
    x = torch.randn(models.IMAGE)
    with torch.no_grad():
        expected = torch.jit.load(str(path))(x)
    assert relative_difference(expected, run_ort(output, x)[0]) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("opset", range(10, 27))
@pytest.mark.parametrize("form", ["script", "trace"])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_every_opset(qcdq, model_file, tmp_path, name, form, opset):
    output = tmp_path / "model.onnx"
    result = export(qcdq, model_file(name, form), output, "--opset", opset, "--verify")
    assert result.returncode == 0, result.stderr


def test_same_file_twice(qcdq, model_file, tmp_path):
    """Exports of one model are the same bytes."""
    written = []
    for name in ("a.onnx", "b.onnx"):
        result = export(qcdq, model_file("squeezenet1_1", "script"), tmp_path / name)
        assert result.returncode == 0, result.stderr
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]


@pytest.mark.slow
@pytest.mark.parametrize("size", [192, 256])
@pytest.mark.parametrize("name", models.NAMES)
def test_other_image_sizes(qcdq, model_file, tmp_path, name, size):
    output = tmp_path / "model.onnx"
    result = qcdq(
        "export",
        model_file(name, "script"),
        "-o",
        output,
        "--verify",
        "--input",
        f"x=f32[2,3,{size},{size}]",
    )
    assert result.returncode == 0, result.stderr
