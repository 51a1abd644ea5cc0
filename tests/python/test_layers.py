# Each kind of quantised layer by itself, as training leaves it: input, weight and output
# fake-quantised, with and without a bias, with BatchNorm behind, 8-bit and narrower.
import itertools
import json
from functools import partial

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models
from conftest import count_ops, run_ort

INT8, UINT8 = (-128, 127), (0, 255)


class Layer(nn.Module):
    """fq(norm(layer(fq(x), fq(w)))) for a layer and the axis of its weight's output channels."""

    def __init__(self, layer, axis, norm=None, bits=8):
        super().__init__()
        self.axis = axis
        self.low, self.high = -(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1
        self.layer = layer
        self.norm = norm or nn.Identity()
        others = [d for d in range(layer.weight.dim()) if d != axis]
        scale = layer.weight.detach().abs().amax(others).clamp(min=1e-10) / self.high
        self.register_buffer("weight_scale", scale)
        self.register_buffer("weight_zero_point", torch.zeros_like(scale, dtype=torch.int32))
        self.input_quant = models.QcdqActivation(0.03, 0, *INT8)
        self.output_quant = models.QcdqActivation(0.05, 0, *INT8)

    def weight(self):
        return torch.ops.qcdq.fake_quantize(
            self.layer.weight,
            self.weight_scale,
            self.weight_zero_point,
            self.low,
            self.high,
            axis=self.axis,
        )


class Linear(Layer):
    def forward(self, x):
        y = F.linear(self.input_quant(x), self.weight(), self.layer.bias)
        return self.output_quant(self.norm(y))


class Conv1d(Layer):
    def forward(self, x):
        y = self.layer._conv_forward(self.input_quant(x), self.weight(), self.layer.bias)
        return self.output_quant(self.norm(y))


class Conv2d(Conv1d):
    pass


class ConvTranspose2d(Layer):
    def forward(self, x):
        y = F.conv_transpose2d(
            self.input_quant(x),
            self.weight(),
            self.layer.bias,
            stride=2,
            padding=1,
            output_padding=1,
        )
        return self.output_quant(self.norm(y))


def norm_of(kind, channels):
    norm = kind(channels)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    norm.weight.data[::3] *= -1
    nn.init.normal_(norm.bias)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return norm


depthwise = partial(nn.Conv2d, 6, 6, 3, dilation=2, groups=6)
transposed = partial(nn.ConvTranspose2d, 6, 9, 3)
# kind: (input shape, class, layer without its bias, axis of output channels, norm, its channels)
KINDS = {
    "linear": ((4, 12), Linear, partial(nn.Linear, 12, 9), 0, nn.BatchNorm1d, 9),
    "linear_3d": ((2, 5, 12), Linear, partial(nn.Linear, 12, 9), 0, nn.BatchNorm1d, 5),
    "conv1d": ((2, 6, 15), Conv1d, partial(nn.Conv1d, 6, 9, 3, padding=1), 0, nn.BatchNorm1d, 9),
    "conv2d": ((2, 6, 9, 8), Conv2d, partial(nn.Conv2d, 6, 9, 3, 2), 0, nn.BatchNorm2d, 9),
    "depthwise": ((2, 6, 9, 8), Conv2d, depthwise, 0, nn.BatchNorm2d, 6),
    "conv_transpose2d": ((2, 6, 5, 4), ConvTranspose2d, transposed, 1, nn.BatchNorm2d, 9),
}
CASES = list(itertools.product(KINDS, ["script", "trace"], [True, False], [False, True], [8]))
CASES += [(kind, "script", True, False, bits) for kind in KINDS for bits in (4, 3, 2)]


@pytest.mark.parametrize("kind, form, bias, norm, bits", CASES)
def test_layer(qcdq, tmp_path, kind, form, bias, norm, bits):
    shape, layer_class, layer, axis, norm_kind, channels = KINDS[kind]
    torch.manual_seed(4)
    behind = norm_of(norm_kind, channels) if norm else None
    model = layer_class(layer(bias=bias), axis, behind, bits).eval()
    path, output = tmp_path / "model.pt", tmp_path / "model.onnx"
    models.save(model, path, form, torch.randn(shape))
    spec = "x=f32[" + ",".join(map(str, shape)) + "]"
    result = qcdq(
        "export", path, "-o", output, "--input", spec, "--dynamic", "x:0=N", "--verify", "--json"
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads(result.stdout)["verify"]["codes_differing"] == 0
    onnx.checker.check_model(str(output), full_check=True)

    folds = norm and kind != "linear_3d"  # there the norm's channels are not the layer's
    counts = count_ops(output)
    if folds or not norm:
        assert "BatchNormalization" not in counts
    assert counts["QuantizeLinear"] == 2
    stored = {
        i.name: onnx.numpy_helper.to_array(i)
        for i in onnx.load(str(output)).graph.initializer
        if i.data_type == onnx.TensorProto.INT8
    }
    codes = [w for w in stored.values() if w.ndim == model.layer.weight.dim()]
    assert len(codes) == 1
    assert abs(codes[0].astype(int)).max() == model.high

    x = torch.randn(shape, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        expected = model(x)
    for optimize in (False, True):
        (actual,) = run_ort(output, x, optimize=optimize)
        steps = (actual - expected).abs() / 0.05
        # A sum at a rounding tie may fall to either side; folding BatchNorm moves it a little more,
        # and a float bias is rounded to input scale * weight scale: wide with few bits.
        bias_code = 0.03 * model.weight_scale.max() / 0.05 if bias else 0
        assert steps.max() < 1.01
        assert (steps > 0.5).float().mean() < 0.02 + bias_code / 2
