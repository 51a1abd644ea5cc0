# One activation quantiser by itself, over ranges, types and opsets: ONNX Runtime must give qcdq's
# own values, bit for bit, on rounding ties, signed zeros, denormals, infinities and NaN too.
import onnx
import pytest
import torch
from torch import nn

import models
from conftest import count_ops, run_ort

# quant_min, quant_max, zero_point, least opset (below it: refused)
RANGES = [
    (0, 1, 0, 10),
    (0, 15, 3, 10),
    (-8, 7, 0, 10),
    (-7, 7, 0, 10),
    (0, 127, 0, 10),
    (0, 255, 0, 10),
    (0, 255, 131, 10),
    (-127, 127, 0, 10),
    (-128, 127, -5, 10),
    (0, 511, 100, 21),
    (-2048, 2047, 0, 21),
    (0, 65535, 30000, 21),
    (-32768, 32767, 0, 21),
]


def edge_values(scale, zero_point, quant_min, quant_max):
    """Ties between all codes near the ends and the middle, and the values that break kernels."""
    generator = torch.Generator().manual_seed(11)
    middle = [quant_min, quant_max, zero_point]
    codes = torch.cat([torch.arange(c - 20, c + 21) for c in middle]) - zero_point
    ties = (codes.float() + 0.5) * scale
    special = torch.tensor(
        [0.0, -0.0, 1e-40, -1e-40, torch.inf, -torch.inf, 3e38, -3e38, torch.nan]
    )
    spread = (quant_max - quant_min) * scale
    return torch.cat(
        [codes.float() * scale, ties, special, torch.randn(500, generator=generator) * spread]
    )


@pytest.mark.parametrize("opset", [10, 12, 13, 21, 26])
@pytest.mark.parametrize("quant_min, quant_max, zero_point, least", RANGES)
def test_values_are_equal(qcdq, tmp_path, quant_min, quant_max, zero_point, least, opset):
    scale = 0.0123
    model = models.QcdqActivation(scale, zero_point, quant_min, quant_max)
    path, output = tmp_path / "model.pt", tmp_path / "model.onnx"
    models.save(model, path, "script", None)
    x = edge_values(model.scale, zero_point, quant_min, quant_max)
    result = qcdq("export", path, "-o", output, "--input", f"x=f32[{len(x)}]", "--opset", opset)
    if opset < least:
        assert result.returncode == 1
        assert f"opset {least}" in result.stderr or f"--opset {least}" in result.stderr
        assert not output.exists()
        return
    assert result.returncode == 0, result.stderr
    onnx.checker.check_model(str(output), full_check=True)
    for optimize in (False, True):
        (actual,) = run_ort(output, x, optimize=optimize)
        assert torch.equal(actual, model(x)), f"optimize={optimize}"
    whole = (quant_min, quant_max) in ((0, 255), (-128, 127), (0, 65535), (-32768, 32767))
    assert count_ops(output).get("Clip", 0) == (0 if whole else 1)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_half_precision_is_cast(qcdq, tmp_path, dtype):
    model = models.QcdqActivation(0.05, 0, -128, 127)
    path, output = tmp_path / "model.pt", tmp_path / "model.onnx"
    models.save(model, path, "script", None)
    result = qcdq("export", path, "-o", output, "--input", f"x={dtype}[64]")
    assert result.returncode == 0, result.stderr
    assert count_ops(output)["Cast"] == 2
    if dtype == "f16":
        x = torch.randn(64, generator=torch.Generator().manual_seed(5)).half() * 4
        (actual,) = run_ort(output, x)
        assert torch.equal(actual, model(x))


@pytest.mark.parametrize("opset", [13, 21])
def test_per_channel_activation(qcdq, tmp_path, opset):
    class PerChannel(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.tensor([0.1, 0.02, 0.5]))
            self.register_buffer("zero_point", torch.tensor([0, 3, -7], dtype=torch.int32))

        def forward(self, x):
            return torch.ops.qcdq.fake_quantize(x, self.scale, self.zero_point, -8, 7, axis=1)

    model = PerChannel()
    path, output = tmp_path / "model.pt", tmp_path / "model.onnx"
    models.save(model, path, "trace", torch.randn(2, 3, 4))
    result = qcdq("export", path, "-o", output, "--input", "x=f32[2,3,4]", "--opset", opset)
    assert result.returncode == 0, result.stderr
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(5))
    (actual,) = run_ort(output, x, optimize=False)
    assert torch.equal(actual, model(x))
