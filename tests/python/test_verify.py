# `qcdq verify`: what it finds in a file that differs from its model, and where it looks for ONNX
# Runtime (ORT). Every case starts from a file that verifies.
import json

import numpy
import onnx
import pytest
import torch
from torch import nn

import models
from conftest import ort_session

SPEC = ("--input", "x=f32[2,8]")


@pytest.fixture(scope="module")
def pair(qcdq, tmp_path_factory):
    """A small quantised model and its .onnx file."""
    folder = tmp_path_factory.mktemp("verify")
    models.save(models.ParameterWeight(), folder / "model.pt", "script", None)
    result = qcdq(
        "export", folder / "model.pt", "-o", folder / "model.onnx", *SPEC, "--dynamic", "x:0=N"
    )
    assert result.returncode == 0, result.stderr
    return folder / "model.pt", folder / "model.onnx"


def changed(pair, tmp_path, change):
    """A copy of the file with `change` applied to its graph."""
    model = onnx.load(str(pair[1]))
    change(model.graph)
    path = tmp_path / "changed.onnx"
    onnx.save(model, str(path))
    return path


def initializer(graph, kind, dims):
    return next(i for i in graph.initializer if i.data_type == kind and len(i.dims) == dims)


def test_the_file_verifies(qcdq, pair):
    before = pair[1].read_bytes()
    result = qcdq("verify", *pair, *SPEC, "--random", "3", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["ok"]
    assert report["codes_differing"] == 0
    assert report["codes_compared"] > 0
    off = [o for o in report["outputs"] if o["run"].startswith("optimisations off")]
    assert len(off) == 6  # three runs at two sizes
    assert max(o["max_relative"] for o in off) < 1e-5
    assert pair[1].read_bytes() == before


def test_shapes_come_from_the_file(qcdq, pair):
    result = qcdq("verify", *pair)
    assert result.returncode == 0, result.stderr


def test_a_changed_weight_code(qcdq, pair, tmp_path):
    def change(graph):
        weight = initializer(graph, onnx.TensorProto.INT8, 2)
        codes = onnx.numpy_helper.to_array(weight).copy()
        codes[0, 0] ^= 64
        weight.CopyFrom(onnx.numpy_helper.from_array(codes, weight.name))

    result = qcdq("verify", pair[0], changed(pair, tmp_path, change), *SPEC)
    assert result.returncode == 3, result.stderr
    assert "output" in result.stdout + result.stderr


def test_a_changed_activation_scale(qcdq, pair, tmp_path):
    """One part in a thousand: the codes differ, which a loose output tolerance would hide."""

    def change(graph):
        for node in graph.node:
            if node.op_type == "QuantizeLinear":
                for i in graph.initializer:
                    if i.name == node.input[1]:
                        value = onnx.numpy_helper.to_array(i) * numpy.float32(1.02)
                        i.CopyFrom(onnx.numpy_helper.from_array(value, i.name))

    result = qcdq("verify", pair[0], changed(pair, tmp_path, change), *SPEC, "--random", "4")
    assert result.returncode == 3, result.stderr


def test_another_model(qcdq, pair, tmp_path):
    path = tmp_path / "other.pt"
    models.save(nn.Linear(8, 6), path, "script", None)
    result = qcdq("verify", path, pair[1], "--input", "input=f32[2,8]")
    assert result.returncode in (1, 3), result.stderr


def test_no_ort(qcdq, pair, tmp_path):
    result = qcdq("verify", *pair, *SPEC, "--ort", tmp_path / "none.so")
    assert result.returncode == 1
    assert "none.so" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_not_an_onnx_file(qcdq, pair, tmp_path):
    path = tmp_path / "text.onnx"
    path.write_text("not a model")
    result = qcdq("verify", pair[0], path, *SPEC)
    assert result.returncode == 1
    assert "text.onnx" in result.stderr


def test_external_data(qcdq, model_file, tmp_path):
    model = model_file("squeezenet1_1", "script")
    output = tmp_path / "model.onnx"
    spec = ("--input", "x=f32[1,3,224,224]")
    result = qcdq("export", model, "-o", output, *spec, "--external-data", "always", "--verify")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "model.onnx.data").stat().st_size > 4_000_000
    assert output.stat().st_size < 500_000
    onnx.checker.check_model(str(output), full_check=True)
    assert qcdq("verify", model, output, *spec).returncode == 0


class TwoOutputs(nn.Module):
    def forward(self, x, y):
        return x + y, x.flatten(1).relu()


@pytest.mark.parametrize("form", ["script", "trace"])
def test_two_inputs_and_outputs(qcdq, tmp_path, form):
    model, output = tmp_path / "two.pt", tmp_path / "two.onnx"
    models.save(TwoOutputs(), model, form, (torch.randn(2, 3, 4), torch.randn(2, 3, 4)))
    options = ["--input", "y=f32[2,3,4]", "--input", "x=f32[2,3,4]"]
    options += ["--output", "sum", "--output", "flat"]
    options += ["--dynamic", "x:0=N", "--dynamic", "y:0=N"]
    result = qcdq("export", model, "-o", output, *options, "--verify")
    assert result.returncode == 0, result.stderr
    graph = onnx.load(str(output)).graph
    assert [i.name for i in graph.input] == ["x", "y"]
    assert [o.name for o in graph.output] == ["sum", "flat"]


class FloatLayerBetweenQuantizers(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.fake_quantize_per_tensor_affine(x, 0.05, 128, 0, 255)
        return torch.fake_quantize_per_tensor_affine(self.fc(x), 0.1, 128, 0, 255)


@pytest.mark.parametrize("opset", [10, 11])
def test_what_ort_cannot_load_at_opset_10_is_noted(qcdq, tmp_path, opset):
    """ORT's own optimiser puts Round-11 behind the float bias: the file is right without it."""
    model, output = tmp_path / "model.pt", tmp_path / "model.onnx"
    models.save(FloatLayerBetweenQuantizers(), model, "script", None)
    result = qcdq("export", model, "-o", output, *SPEC, "--opset", opset, "--json")
    assert result.returncode == 0, result.stderr
    noted = any("does not load this file" in note for note in json.loads(result.stdout)["notes"])
    assert noted == (opset == 10)
    ort_session(output, optimize=False)
    if noted:
        with pytest.raises(Exception, match="Round"):
            ort_session(output)
    else:
        ort_session(output)
