# Input specifications against a model's arguments: names, order, defaults, types, .npy files.
import json

import numpy as np
import onnx
import pytest


def graph_inputs(path):
    return {
        v.name: (
            v.type.tensor_type.elem_type,
            [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim],
        )
        for v in onnx.load(str(path)).graph.input
    }


def test_unknown_name_lists_the_models(refused, models):
    line = refused("export", models["net"], "-o", "o.onnx", "--input", "y=f32[1,4]", code=2)
    assert line == "qcdq export: --input y: the model has no such input, it has: x"


def test_given_twice(refused, models):
    specs = ["--input", "x=f32[1,4]", "x=f32[1,4]"]
    line = refused("export", models["net"], "-o", "o.onnx", *specs, code=2)
    assert line == "qcdq export: --input x is given twice"


def test_missing(refused, models):
    line = refused("export", models["difference"], "-o", "o.onnx", "--input", "a=f32[2]", code=2)
    assert line == (
        "qcdq export: --input is missing for: b; expected --input b=DTYPE[D0,D1,...] for each, "
        "such as b=f32[1,3,224,224]"
    )


def test_only_tensors(refused, models):
    specs = ["--input", "a=f32[2]", "b=f32[2]", "bias=f32[]"]
    line = refused("export", models["difference"], "-o", "o.onnx", *specs, code=1)
    assert line == (
        "qcdq export: input 'bias' is of type float: only tensors can be inputs of an ONNX model; "
        "leave it out for its default"
    )


DYNAMIC_ERRORS = [
    (["y:0=N"], "--dynamic y:0=N: there is no such input, there are: x"),
    (["x:2=N"], "--dynamic x:2=N: input 'x' has 2 dimensions"),
    (["x:-3=N"], "--dynamic x:-3=N: input 'x' has 2 dimensions"),
    (["x:0=N", "x:-2=M"], "--dynamic x:-2=M: the axis is given twice"),
    (["x:0=N", "x:1=N"], "--dynamic x:1=N: symbol 'N' has size 2 elsewhere and 4 here"),
]


@pytest.mark.parametrize("axes, message", DYNAMIC_ERRORS)
def test_dynamic_axes(refused, models, axes, message):
    arguments = ["--input", "x=f32[2,4]", "--dynamic", *axes]
    line = refused("export", models["net"], "-o", "o.onnx", *arguments, code=2)
    assert line == f"qcdq export: {message}"


def test_unknown_method(refused, models):
    arguments = ["--input", "x=f32[2,4]", "--method", "backward"]
    line = refused("export", models["net"], "-o", "o.onnx", *arguments, code=2)
    assert line.startswith("qcdq export: --method backward: the model has no such method, it has:")


def test_order_is_the_schemas_and_defaults_may_be_left_out(qcdq, models, tmp_path):
    specs = ["--input", "b=f32[2,3]", "a=f32[2,3]"]
    result = qcdq("export", models["difference"], "-o", "o.onnx", *specs, "--verify", cwd=tmp_path)
    assert result.returncode == 0, result
    assert list(graph_inputs(tmp_path / "o.onnx")) == ["a", "b"]


def test_traced_names(qcdq, models, tmp_path):
    """A printed trace names its argument x.1; the command line and the file say x."""
    for spec in ["x=f32[2,4]", "x.1=f32[2,4]"]:
        result = qcdq("export", models["traced"], "-o", "o.onnx", "--input", spec, cwd=tmp_path)
        assert result.returncode == 0, result
        assert graph_inputs(tmp_path / "o.onnx") == {"x": (onnx.TensorProto.FLOAT, [2, 4])}
    for axis in ["x:0=N", "x.1:0=N"]:
        options = ["--input", "x=f32[2,4]", "--dynamic", axis]
        result = qcdq("export", models["traced"], "-o", "o.onnx", *options, cwd=tmp_path)
        assert result.returncode == 0, result
        assert graph_inputs(tmp_path / "o.onnx") == {"x": (onnx.TensorProto.FLOAT, ["N", 4])}


@pytest.mark.parametrize("option", [["--input", "x.y=f32[2,4]"], ["--dynamic", "x.y:0=N"]])
def test_names_with_a_dot_that_no_argument_has(refused, models, option):
    """Only TorchScript's own number may follow a name."""
    options = option if option[0] == "--input" else ["--input", "x=f32[2,4]", *option]
    line = refused("export", models["traced"], "-o", "o.onnx", *options, code=2)
    assert "no such input" in line and line.endswith(": x")


def test_no_inputs(qcdq, models, tmp_path):
    result = qcdq("export", models["constant"], "-o", "o.onnx", "--verify", cwd=tmp_path)
    assert result.returncode == 0, result
    assert graph_inputs(tmp_path / "o.onnx") == {}


def test_type_defaults_to_f32(qcdq, models, tmp_path):
    result = qcdq("export", models["net"], "-o", "o.onnx", "--input", "x=[2,4]", cwd=tmp_path)
    assert result.returncode == 0, result
    assert graph_inputs(tmp_path / "o.onnx") == {"x": (onnx.TensorProto.FLOAT, [2, 4])}


def test_scalars_and_integers(qcdq, models, tmp_path):
    specs = ["--input", "a=f32[]", "b=i32[3]"]
    result = qcdq("export", models["difference"], "-o", "o.onnx", *specs, "--verify", cwd=tmp_path)
    assert result.returncode == 0, result
    assert graph_inputs(tmp_path / "o.onnx") == {
        "a": (onnx.TensorProto.FLOAT, []),
        "b": (onnx.TensorProto.INT32, [3]),
    }


def test_integer_range(qcdq, models, tmp_path):
    specs = ["--input", "ids=i64[2,16]{40..49}", "--dynamic", "ids:1=L"]
    result = qcdq("export", models["embedding"], "-o", "o.onnx", *specs, "--verify", cwd=tmp_path)
    assert result.returncode == 0, result
    assert graph_inputs(tmp_path / "o.onnx") == {"ids": (onnx.TensorProto.INT64, [2, "L"])}


def test_npy(qcdq, models, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(5, 4)).astype("f4"))
    result = qcdq(
        "export", models["net"], "-o", "o.onnx", "--input", "x=x.npy", "--verify", cwd=tmp_path
    )
    assert result.returncode == 0, result
    assert graph_inputs(tmp_path / "o.onnx") == {"x": (onnx.TensorProto.FLOAT, [5, 4])}
    result = qcdq("verify", models["net"], "o.onnx", "--input", "x=x.npy", "--json", cwd=tmp_path)
    assert result.returncode == 0, result
    # The values are fixed: one set of inputs, optimisations off and on.
    assert len(json.loads(result.stdout)["outputs"]) == 2


def test_npy_errors(refused, models, tmp_path):
    line = refused("export", models["net"], "-o", "o.onnx", "--input", "x=gone.npy", code=1)
    assert line == "qcdq export: cannot open gone.npy: No such file or directory"
    np.save(tmp_path / "f.npy", np.asfortranarray(np.ones((2, 4), "f4")))
    line = refused("export", models["net"], "-o", "o.onnx", "--input", "x=f.npy", code=1)
    assert line == ("qcdq export: f.npy: Fortran order, expected C order (numpy.ascontiguousarray)")
