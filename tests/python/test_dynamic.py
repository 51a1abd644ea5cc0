# Dynamic axes: a batch axis that stays free, and a trace that baked its batch in, which export must
# refuse instead of writing a graph that is right for one size.
import onnx
import pytest
import torch
from torch import nn

import models
from conftest import relative_difference, run_ort


class FlattenBySize(nn.Module):
    """Reads the batch size: a trace keeps the size it saw, where int() ends up in the graph."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(12, 5)

    def forward(self, x):
        return self.fc(x.view(x.size(0), -1))


class BakedBatch(nn.Module):
    """Its batch size is a constant in the graph."""

    def forward(self, x):
        return x.view(2, 12) * 2


def export(qcdq, tmp_path, model, form, spec, *arguments, example):
    path = tmp_path / "model.pt"
    models.save(model, path, form, example)
    output = tmp_path / "model.onnx"
    return qcdq("export", path, "-o", output, "--input", spec, *arguments), output


@pytest.mark.parametrize("form", ["script", "trace"])
def test_batch_stays_free(qcdq, tmp_path, form):
    model = FlattenBySize()
    x = torch.randn(2, 3, 4)
    result, output = export(
        qcdq, tmp_path, model, form, "x=f32[2,3,4]", "--dynamic", "x:0=batch", "--verify", example=x
    )
    assert result.returncode == 0, result.stderr
    graph = onnx.load(str(output)).graph
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    for batch in (1, 2, 7):
        x = torch.randn(batch, 3, 4)
        with torch.no_grad():
            assert relative_difference(model(x), run_ort(output, x)[0]) < 1e-5


@pytest.mark.parametrize("form", ["script", "trace"])
def test_without_dynamic_the_shape_is_fixed(qcdq, tmp_path, form):
    result, output = export(
        qcdq, tmp_path, FlattenBySize(), form, "x=f32[2,3,4]", example=torch.randn(2, 3, 4)
    )
    assert result.returncode == 0, result.stderr
    dims = onnx.load(str(output)).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims] == [2, 3, 4]


@pytest.mark.parametrize("form", ["script", "trace"])
def test_baked_batch_is_refused(qcdq, tmp_path, form):
    spec, example = "x=f32[2,3,4]", torch.randn(2, 3, 4)
    result, output = export(
        qcdq, tmp_path, BakedBatch(), form, spec, "--dynamic", "x:0=N", example=example
    )
    assert result.returncode == 1
    assert not output.exists()
    assert len(result.stderr.splitlines()) == 1
    assert "N" in result.stderr or "x:0" in result.stderr


def test_dynamic_image_size(qcdq, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    free = ["--dynamic", "input:0=N", "--dynamic", "input:2=H", "--dynamic", "input:3=W"]
    spec, example = "input=f32[1,3,16,16]", torch.randn(1, 3, 16, 16)
    result, output = export(
        qcdq, tmp_path, model, "trace", spec, *free, "--verify", example=example
    )
    assert result.returncode == 0, result.stderr
    x = torch.randn(3, 3, 9, 21)
    with torch.no_grad():
        assert relative_difference(model(x), run_ort(output, x)[0]) < 1e-5


class NumberFromData(nn.Module):
    """A number that a script computes at each run, and a trace only once."""

    def forward(self, x, k):
        return x[: int(k.sum())] if torch.jit.is_scripting() else x * int(k.max())


def test_a_number_from_data_follows_it_or_is_noted(qcdq, tmp_path):
    k = torch.tensor([1, 2])
    for form in ("script", "trace"):
        path, output = tmp_path / f"{form}.pt", tmp_path / f"{form}.onnx"
        models.save(NumberFromData(), path, form, (torch.randn(5), k))
        result = qcdq("export", path, "-o", output, "--input", "x=f32[5]", "k=i64[2]")
        assert result.returncode == 0, result.stderr
        x = torch.randn(5)
        expected = x[:3] if form == "script" else x * 2
        assert torch.equal(run_ort(output, x, k)[0], expected)
        assert ("input 'k' is not used in the file" in result.stdout) == (form == "trace")
