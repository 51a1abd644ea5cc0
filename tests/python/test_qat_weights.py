# A weight that training fake-quantises keeps its quantisation after export, wherever the float
# weight sits: freezing and constant propagation in libtorch would fold it away without a word.
import numpy
import onnx
import pytest
import torch

import models
from conftest import count_ops, run_ort

CASES = [
    (models.ParameterWeight, "script", ()),
    (models.ParameterWeight, "trace", ()),
    (models.BufferWeight, "script", ()),
    (models.BufferWeight, "trace", ()),
    (models.ConstantWeight, "trace", ("qcdq",)),
    (models.ConstantWeight, "trace", ("aten",)),
]


def exported(qcdq, tmp_path, kind, form, arguments, *options):
    path = tmp_path / "model.pt"
    reference = models.save(kind(*arguments), path, form, torch.randn(2, 8))
    output = tmp_path / "model.onnx"
    result = qcdq(
        "export",
        path,
        "-o",
        output,
        "--input",
        "x=f32[2,8]",
        "--dynamic",
        "x:0=N",
        "--verify",
        *options,
    )
    assert result.returncode == 0, result.stderr
    return reference, output


@pytest.mark.parametrize("kind, form, arguments", CASES)
def test_integer_weight(qcdq, tmp_path, kind, form, arguments):
    reference, output = exported(qcdq, tmp_path, kind, form, arguments)
    counts = count_ops(output)
    assert counts["QuantizeLinear"] == 1  # the input's
    assert counts["DequantizeLinear"] == 2  # the input's and the weight's

    torch.manual_seed(3)
    weight = torch.randn(6, 8).numpy()
    scale = numpy.abs(weight).max(1) / numpy.float32(127)
    expected = numpy.clip(numpy.rint(weight / scale[:, None]), -127, 127)
    stored = [
        onnx.numpy_helper.to_array(i)
        for i in onnx.load(str(output)).graph.initializer
        if i.data_type == onnx.TensorProto.INT8 and len(i.dims) == 2
    ]
    assert len(stored) == 1
    codes = stored[0] if stored[0].shape == (6, 8) else stored[0].T
    assert numpy.array_equal(codes, expected)

    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(7))
    (actual,) = run_ort(output, x, optimize=False)
    torch.testing.assert_close(actual, reference(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind, form, arguments", CASES)
def test_qdq_weight(qcdq, tmp_path, kind, form, arguments):
    """--weights qdq keeps the float weight and its Q, Clip and DQ."""
    reference, output = exported(qcdq, tmp_path, kind, form, arguments, "--weights", "qdq")
    counts = count_ops(output)
    assert counts["QuantizeLinear"] == 2
    assert counts["DequantizeLinear"] == 2
    assert counts["Clip"] == 1  # [-127, 127] is narrower than int8
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(7))
    (actual,) = run_ort(output, x, optimize=False)
    torch.testing.assert_close(actual, reference(x), rtol=1e-5, atol=1e-5)
