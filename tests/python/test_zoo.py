# One model per op family, scripted and traced: exported by the program, run in ONNX Runtime (ORT)
# on other inputs than the exporter saw, and compared with eager torch.
import onnx
import pytest
import torch

import zoo
from conftest import assert_like_eager, input_options

FORMS = ("script", "trace")


def argument_names(module):
    return [argument.name.split(".")[0] for argument in module.forward.schema.arguments[1:]]


def save(name, form, folder):
    """Writes the .pt file and example inputs; returns the eager model and the --input options."""
    model, inputs = zoo.make(name)
    eager = model
    if name in zoo.DICTS and form == "trace":
        model = zoo.Output(model)
    if form == "script":
        module = torch.jit.script(model)
    else:
        with torch.no_grad():
            module = torch.jit.trace(model, inputs, check_trace=False)
    module.save(str(folder / "model.pt"))
    options = input_options(folder, argument_names(module), inputs)
    return model if form == "trace" else eager, options


def check(qcdq, name, form, folder, *more):
    model, options = save(name, form, folder)
    made = qcdq("export", folder / "model.pt", "-o", folder / "m.onnx", *options, *more)
    assert made.returncode == 0, made.stderr
    assert_like_eager(folder / "m.onnx", model, zoo.other_inputs(name))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", zoo.SMALL)
def test_small(qcdq, tmp_path, name, form):
    check(qcdq, name, form, tmp_path)


def test_decomposed_instance_norm(qcdq, tmp_path):
    """run_decompositions makes a batch_norm of it that has no running statistics."""
    model, inputs = zoo.make("batch_statistics")
    program = torch.export.export(model, inputs).run_decompositions()
    ops = {str(node.target) for node in program.graph.nodes}
    assert any("no_stats" in op or "_native_batch_norm_legit" in op for op in ops), ops
    torch.export.save(program, str(tmp_path / "m.pt2"))
    made = qcdq("export", tmp_path / "m.pt2", "-o", tmp_path / "m.onnx", "--verify")
    assert made.returncode == 0, made.stderr


@pytest.mark.slow
@pytest.mark.parametrize("opset", [13, 17, 18, 23])
@pytest.mark.parametrize("name", zoo.SMALL)
def test_small_at_other_opsets(qcdq, tmp_path, name, opset):
    check(qcdq, name, "script", tmp_path, "--opset", opset)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", zoo.LARGE)
def test_large(qcdq, tmp_path, name, form):
    check(qcdq, name, form, tmp_path)


def test_dict_keys_name_the_outputs(qcdq, tmp_path):
    class Dict(torch.nn.Module):
        def forward(self, x):
            found = {"low": x * 2}
            found["high"] = found["low"] + 1
            return found

    torch.jit.script(Dict()).save(str(tmp_path / "model.pt"))
    made = qcdq("export", tmp_path / "model.pt", "-o", tmp_path / "m.onnx", "--input", "x=f32[2,3]")
    assert made.returncode == 0, made.stderr
    outputs = [output.name for output in onnx.load(str(tmp_path / "m.onnx")).graph.output]
    assert outputs == ["low", "high"]


def test_branches_on_data_are_refused_by_name(qcdq, tmp_path):
    torch.jit.script(zoo.DataControl()).save(str(tmp_path / "model.pt"))
    made = qcdq("export", tmp_path / "model.pt", "-o", tmp_path / "m.onnx", "--input", "x=f32[2,3]")
    assert made.returncode == 1
    assert "prim::If" in made.stderr
    assert "control flow that depends on data" in made.stderr
    assert not (tmp_path / "m.onnx").exists()
