# The int8 coverage that qcdq predicts (`qcdq inspect --json`) against the graph that ONNX Runtime
# (ORT) writes after its optimisations: a node is int8 where ORT made an integer kernel of it.
# The numbers of the same rewrites: `qcdq export --verify` on layers whose weights are viewed, have
# BatchNorm behind them or are quantised by aten.
import collections
import json

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models
from conftest import ort_session

SIGNED = (0.05, 0, -128, 127)
UNSIGNED = (0.03, 0, 0, 255)
FOUR_BITS = (0.5, 0, -8, 7)
# What ORT turns an op into when it runs it on codes; it makes one Gemm of a MatMul and its bias.
INTEGER = {
    ("Conv",): ("QLinearConv",),
    ("Gemm", "MatMul"): ("QGemm", "QLinearMatMul", "MatMulIntegerToFloat"),
    ("Add",): ("QLinearAdd",),
    ("Mul",): ("QLinearMul",),
    ("Concat",): ("QLinearConcat",),
    ("LeakyRelu",): ("QLinearLeakyRelu",),
    ("Sigmoid",): ("QLinearSigmoid",),
    ("Softmax",): ("QLinearSoftmax",),
    ("AveragePool",): ("QLinearAveragePool",),
    ("GlobalAveragePool",): ("QLinearGlobalAveragePool",),
}


def quantizer(parameters):
    return models.QcdqActivation(*parameters)


def with_weight(layer, kind):
    layer.__class__ = kind
    layer.weight_quant = models.QcdqWeight(layer.weight)
    return layer


def conv(*arguments, **keywords):
    return with_weight(nn.Conv2d(*arguments, **keywords), models.QatConv2d)


class Chain(nn.Module):
    """input quantiser -> layers -> output quantiser (where there is one)."""

    def __init__(self, layers, before=SIGNED, after=SIGNED):
        super().__init__()
        self.before = quantizer(before) if before else nn.Identity()
        self.layers = nn.Sequential(*layers)
        self.after = quantizer(after) if after else nn.Identity()

    def forward(self, x):
        return self.after(self.layers(self.before(x)))


class Residual(nn.Module):
    """Two Conv whose sum is quantised; the input has two users."""

    def __init__(self, concat=False):
        super().__init__()
        self.before = quantizer(SIGNED)
        self.conv = conv(4, 4, 3, padding=1)
        self.between = quantizer(SIGNED)
        self.after = quantizer(UNSIGNED)
        self.concat = concat

    def forward(self, x):
        x = self.before(x)
        y = self.between(self.conv(x))
        z = torch.cat([x, y], 1) if self.concat else torch.relu(x + y)
        return self.after(z)


class Attention(nn.Module):
    """MatMul of two quantised activations."""

    def __init__(self):
        super().__init__()
        self.a = quantizer(SIGNED)
        self.b = quantizer(SIGNED)
        self.after = quantizer(SIGNED)

    def forward(self, x):
        return self.after(self.a(x) @ self.b(torch.sin(x)).transpose(-1, -2))


class PerTokenLinear(nn.Module):
    """A Linear on three dimensions: MatMul and Add."""

    def __init__(self, bias):
        super().__init__()
        self.before = quantizer(SIGNED)
        self.fc = with_weight(nn.Linear(6, 5, bias=bias), models.QatLinear)
        self.after = quantizer(SIGNED)

    def forward(self, x):
        return self.after(self.fc(self.before(x)))


def linear(*arguments):
    return with_weight(nn.Linear(*arguments), models.QatLinear)


IMAGE = (1, 4, 8, 8)
NETS = {
    "conv": (lambda: Chain([conv(4, 6, 3)]), IMAGE),
    "conv without bias": (lambda: Chain([conv(4, 6, 3, bias=False)]), IMAGE),
    "depthwise conv": (lambda: Chain([conv(4, 4, 3, groups=4)]), IMAGE),
    "conv bn relu": (
        lambda: Chain([conv(4, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU()], after=UNSIGNED),
        IMAGE,
    ),
    "conv relu with a signed quantiser": (lambda: Chain([conv(4, 6, 3), nn.ReLU()]), IMAGE),
    "conv relu6": (lambda: Chain([conv(4, 6, 3), nn.ReLU6()], after=UNSIGNED), IMAGE),
    "conv relu6 whose codes go past six": (
        lambda: Chain([conv(4, 6, 3), nn.ReLU6()], after=(0.1, 0, 0, 255)),
        IMAGE,
    ),
    "conv of four bits": (lambda: Chain([conv(4, 6, 3)], FOUR_BITS, FOUR_BITS), IMAGE),
    "conv with float output": (lambda: Chain([conv(4, 6, 3)], after=None), IMAGE),
    "conv with float input": (lambda: Chain([conv(4, 6, 3)], before=None), IMAGE),
    "conv with float weight": (lambda: Chain([nn.Conv2d(4, 6, 3)]), IMAGE),
    "conv maxpool": (
        lambda: Chain([conv(4, 6, 3), nn.ReLU(), nn.MaxPool2d(2)], after=UNSIGNED),
        IMAGE,
    ),
    "maxpool conv": (lambda: Chain([nn.MaxPool2d(2), conv(4, 6, 3)]), IMAGE),
    "conv then flatten and linear": (
        lambda: Chain(
            [conv(4, 6, 3), nn.ReLU(), quantizer(UNSIGNED), nn.Flatten(), linear(216, 3)],
            after=None,
        ),
        IMAGE,
    ),
    "linear": (lambda: Chain([linear(6, 5)]), (3, 6)),
    "linear with float output": (lambda: Chain([linear(6, 5)], after=None), (3, 6)),
    "linear of four bits": (lambda: Chain([linear(6, 5)], FOUR_BITS, FOUR_BITS), (3, 6)),
    "linear per token": (lambda: PerTokenLinear(False), (2, 3, 6)),
    "linear per token with bias": (lambda: PerTokenLinear(True), (2, 3, 6)),
    "matmul of activations": (Attention, (2, 3, 6)),
    "residual add": (Residual, IMAGE),
    "concat": (lambda: Residual(concat=True), IMAGE),
    "transposed conv": (
        lambda: Chain([nn.ConvTranspose2d(4, 4, 3)]),
        IMAGE,
    ),
    "leaky relu": (lambda: Chain([nn.LeakyReLU(0.1)]), IMAGE),
    "sigmoid": (lambda: Chain([nn.Sigmoid()], after=UNSIGNED), IMAGE),
    "softmax": (lambda: Chain([nn.Softmax(1)], after=(1 / 255, 0, 0, 255)), (3, 6)),
    "tanh": (lambda: Chain([nn.Tanh()]), IMAGE),
    "average pool": (lambda: Chain([nn.AvgPool2d(2)]), IMAGE),
    "global average pool": (lambda: Chain([nn.AdaptiveAvgPool2d(1)]), IMAGE),
}


def prediction(qcdq, output):
    result = qcdq("inspect", output, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["coverage"]


@pytest.mark.parametrize("storage", ["unsigned", "signed"])
@pytest.mark.parametrize("name", NETS)
def test_prediction(qcdq, tmp_path, name, storage):
    make, shape = NETS[name]
    torch.manual_seed(5)
    path = tmp_path / "net.pt"
    models.save(make(), path, "trace", torch.randn(shape))
    output = tmp_path / "net.onnx"
    dims = ",".join(map(str, shape))
    result = qcdq(
        "export", path, "-o", output, "--input", f"x=f32[{dims}]", "--activation-storage", storage
    )
    assert result.returncode == 0, result.stderr
    optimized = tmp_path / "optimised.onnx"
    ort_session(output, optimized_path=optimized, exact=False)
    made = collections.Counter(n.op_type for n in onnx.load(str(optimized)).graph.node)
    predicted = collections.Counter()
    reasons = []
    for row in prediction(qcdq, output):
        predicted[row["op_type"], row["int8"]] += 1
        reasons.append(f"{row['node']}: {row['int8']} {row['reason']}")
        if not row["int8"]:
            assert row["reason"]
    for ops, kernels in INTEGER.items():
        integer = sum(made[k] for k in kernels)
        assert integer == sum(predicted[op, True] for op in ops), (ops, dict(made), reasons)


def test_weights_as_qdq_fuse_alike(qcdq, tmp_path):
    torch.manual_seed(5)
    path = tmp_path / "net.pt"
    models.save(Residual(), path, "trace", torch.randn(IMAGE))
    kernels = []
    for weights in ("int", "qdq"):
        output = tmp_path / f"{weights}.onnx"
        result = qcdq(
            "export", path, "-o", output, "--input", "x=f32[1,4,8,8]", "--weights", weights
        )
        assert result.returncode == 0, result.stderr
        optimized = tmp_path / "optimised.onnx"
        ort_session(output, optimized_path=optimized, exact=False)
        kernels.append(collections.Counter(n.op_type for n in onnx.load(str(optimized)).graph.node))
    assert kernels[0] == kernels[1]


def random_norm(norm):
    nn.init.uniform_(norm.weight, -1.5, 1.5)  # negative: the codes are negated
    nn.init.uniform_(norm.bias, -1, 1)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    return norm


class TransposedNorm(nn.Module):
    """ConvTranspose2d, whose output channels lie along axis 1 of its weight, and BatchNorm."""

    def __init__(self):
        super().__init__()
        self.before = quantizer(SIGNED)
        self.conv = nn.ConvTranspose2d(4, 6, 3)
        self.norm = random_norm(nn.BatchNorm2d(6))
        self.after = quantizer(UNSIGNED)
        scale = self.conv.weight.detach().abs().amax((0, 2, 3)) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.zeros(6, dtype=torch.int32))

    def forward(self, x):
        weight = torch.ops.qcdq.fake_quantize(
            self.conv.weight, self.scale, self.zero_point, -127, 127, axis=1
        )
        y = F.conv_transpose2d(self.before(x), weight, self.conv.bias)
        return self.after(torch.relu(self.norm(y)))


class LinearNorm(nn.Module):
    """Linear and BatchNorm."""

    def __init__(self):
        super().__init__()
        self.before = quantizer(SIGNED)
        self.fc = linear(8, 6)
        self.norm = random_norm(nn.BatchNorm1d(6))
        self.after = quantizer(UNSIGNED)

    def forward(self, x):
        return self.after(torch.relu(self.norm(self.fc(self.before(x)))))


class Views(nn.Module):
    """Quantised weights that are transposed or get a dimension before they are used."""

    def __init__(self):
        super().__init__()
        self.before = quantizer(SIGNED)
        self.after = quantizer(SIGNED)
        self.weight = nn.Parameter(torch.randn(6, 8))
        self.weight_quant = models.QcdqWeight(self.weight)
        self.kernel = nn.Parameter(torch.randn(5, 4, 1))
        self.kernel_quant = models.QcdqWeight(self.kernel)

    def forward(self, x):
        x = self.before(x)
        weight = self.weight_quant(self.weight)
        y = self.after(x @ weight.t()) + torch.matmul(x, weight.transpose(0, 1).contiguous())
        image = x.reshape(1, 4, 2, 4)
        return y, F.conv2d(image, self.kernel_quant(self.kernel).unsqueeze(-1))


class Aten(nn.Module):
    """aten's quantisers per tensor: 4 bits, a Relu, and a scale at which 1/scale is inexact."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 8))
        self.bias = nn.Parameter(torch.randn(6))

    def forward(self, x):
        x = torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -8, 7)
        weight = torch.fake_quantize_per_tensor_affine(self.weight, 0.0123, 0, -127, 127)
        y = torch.relu(F.linear(x, weight, self.bias))
        return torch.fake_quantize_per_tensor_affine(y, 0.05, 0, 0, 15)


PER_CHANNEL = {
    "transposed conv and norm": (TransposedNorm, IMAGE),
    "linear and norm": (LinearNorm, (5, 8)),
    "views": (Views, (4, 8)),
    "residual add": NETS["residual add"],
    "linear per token with bias": NETS["linear per token with bias"],
}
OPTIONS = [
    (),
    ("--activation-storage", "signed"),
    ("--weights", "qdq"),
    ("--weight-storage", "uint8"),
    ("--opset", "13"),
    ("--opset", "26"),
]
CASES = [(name, options) for name in PER_CHANNEL for options in OPTIONS] + [
    ("aten", options)
    for options in [*OPTIONS, ("--opset", "10"), ("--opset", "11"), ("--opset", "12")]
]


@pytest.mark.parametrize("name, options", CASES, ids=str)
def test_numbers(qcdq, tmp_path, name, options):
    make, shape = {**PER_CHANNEL, "aten": (Aten, (4, 8))}[name]
    torch.manual_seed(5)
    path = tmp_path / "net.pt"
    models.save(make(), path, "trace", torch.randn(shape))
    output = tmp_path / "net.onnx"
    dims = ",".join(map(str, shape))
    result = qcdq(
        "export", path, "-o", output, "--input", f"x=f32[{dims}]", "--verify", "--json", *options
    )
    assert result.returncode == 0, result.stderr
    verified = json.loads(result.stdout)["verify"]
    assert verified["codes_compared"] > 0
    assert verified["codes_differing"] == 0
    graph = onnx.load(str(output)).graph
    assert not [n.name for n in graph.node if n.op_type == "BatchNormalization"]
    # Nothing stands between a weight's DequantizeLinear and its layer.
    made = {o: n.op_type for n in graph.node for o in n.output}
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            assert made[node.input[1]] == "DequantizeLinear"
