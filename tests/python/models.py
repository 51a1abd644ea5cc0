# The models of the end-to-end tests: torchvision's networks with seeded random weights, their
# fake-quantised copies (as quantisation-aware training leaves them), and small modules that hold a
# weight in different ways. All of them script and trace. conftest.py writes them to .pt files.
import copy
import operator

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

NAMES = ("resnet18", "resnet50", "mobilenet_v2", "vgg11", "squeezenet1_1")
IMAGE = (1, 3, 224, 224)


def float_model(name, seed=0):
    """One of NAMES in eval mode, with BatchNorm statistics of a few forwards in train mode."""
    torch.manual_seed(seed)
    model = getattr(torchvision.models, name)(weights=None)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        norm.weight.data[::7] *= -1  # folding these into a quantised Conv negates its codes
        nn.init.normal_(norm.bias, 0, 0.2)
    if norms:
        model.train()
        with torch.no_grad():
            for _ in range(3):
                model(torch.randn(4, 3, 64, 64))
    return model.eval()


# Quantisers. One class per op: scripting compiles each forward whole.
class QcdqActivation(nn.Module):
    """qcdq::fake_quantize with scale and zero point as buffers."""

    def __init__(self, scale, zero_point, quant_min, quant_max):
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
        self.register_buffer("zero_point", torch.tensor(zero_point, dtype=torch.int32))
        self.quant_min = quant_min
        self.quant_max = quant_max

    def forward(self, x):
        return torch.ops.qcdq.fake_quantize(
            x, self.scale, self.zero_point, self.quant_min, self.quant_max
        )


class AtenActivation(nn.Module):
    """aten::fake_quantize_per_tensor_affine with numbers for scale and zero point."""

    def __init__(self, scale, zero_point, quant_min, quant_max):
        super().__init__()
        self.scale = float(torch.tensor(scale, dtype=torch.float32))
        self.zero_point = zero_point
        self.quant_min = quant_min
        self.quant_max = quant_max

    def forward(self, x):
        return torch.fake_quantize_per_tensor_affine(
            x, self.scale, self.zero_point, self.quant_min, self.quant_max
        )


class AtenTensorActivation(QcdqActivation):
    """aten::fake_quantize_per_tensor_affine.tensor_qparams."""

    def forward(self, x):
        return torch.fake_quantize_per_tensor_affine(
            x, self.scale, self.zero_point, self.quant_min, self.quant_max
        )


class QcdqWeight(nn.Module):
    """qcdq::fake_quantize per output channel, narrow symmetric int8."""

    def __init__(self, weight):
        super().__init__()
        scale = weight.detach().flatten(1).abs().amax(1).clamp(min=1e-10) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.zeros_like(scale, dtype=torch.int32))

    def forward(self, weight):
        return torch.ops.qcdq.fake_quantize(weight, self.scale, self.zero_point, -127, 127, axis=0)


class AtenWeight(QcdqWeight):
    """aten::fake_quantize_per_channel_affine, narrow symmetric int8."""

    def forward(self, weight):
        return torch.fake_quantize_per_channel_affine(
            weight, self.scale, self.zero_point, 0, -127, 127
        )


class QatConv2d(nn.Conv2d):
    """A Conv2d that fake-quantises its float weight at every forward."""

    def forward(self, x):
        return self._conv_forward(x, self.weight_quant(self.weight), self.bias)


class QatLinear(nn.Linear):
    """A Linear that fake-quantises its float weight at every forward."""

    def forward(self, x):
        return F.linear(x, self.weight_quant(self.weight), self.bias)


QUANTIZERS = {
    "qcdq": (QcdqActivation, QcdqWeight),
    "aten": (AtenActivation, AtenWeight),
    "aten_tensor": (AtenTensorActivation, AtenWeight),
}


class _Ranges(torch.fx.Interpreter):
    """Runs a traced model once and notes the least and the largest value of each node."""

    def __init__(self, module):
        super().__init__(module)
        self.ranges = {}

    def run_node(self, node):
        value = super().run_node(node)
        if torch.is_tensor(value):
            self.ranges[node.name] = (value.min().item(), value.max().item())
        return value


def _kind(node, modules):
    if node.op == "call_module":
        return type(modules[node.target])
    return node.target


def _quantized_nodes(graph_module):
    """Nodes whose value gets a quantiser: inputs, and what each layer finally gives (after its
    BatchNorm and its activation); MaxPool repeats its input's quantiser."""
    modules = dict(graph_module.named_modules())
    swallowed = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6)
    layers = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.AdaptiveAvgPool2d)
    functions = (operator.add, operator.iadd, torch.add, torch.cat, F.adaptive_avg_pool2d)
    last = next(n for n in graph_module.graph.nodes if n.op == "output").args[0]
    for node in graph_module.graph.nodes:
        if node.op == "placeholder":
            yield node, None
            continue
        kind = _kind(node, modules)
        if kind is nn.MaxPool2d:
            yield node, node.args[0]
        elif kind in layers or kind in functions:
            users = list(node.users)
            if (len(users) == 1 and _kind(users[0], modules) in swallowed) or node is last:
                continue
            yield node, None


def quantized_model(model, quantizers="qcdq", example=None):
    """A copy of a float model in which every Conv and Linear weight and every activation between
    layers is fake-quantised; BatchNorm stays behind its Conv. Scales come from one forward, with a
    tenth of the range cut off, so that codes spread over the whole range and some saturate."""
    activation, weight = QUANTIZERS[quantizers]
    if example is None:
        example = torch.randn(IMAGE, generator=torch.Generator().manual_seed(1))
    traced = torch.fx.symbolic_trace(copy.deepcopy(model).eval())
    interpreter = _Ranges(traced)
    with torch.no_grad():
        interpreter.run(example)
    quantized = list(_quantized_nodes(traced))
    for module in list(traced.modules()):
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.__class__ = QatConv2d if isinstance(module, nn.Conv2d) else QatLinear
            module.weight_quant = weight(module.weight)
        elif isinstance(module, (nn.ReLU, nn.ReLU6)):
            module.inplace = False

    twin = {}
    for node, shared in quantized:
        low, high = interpreter.ranges[node.name]
        if shared is not None and shared.name in twin:
            parameters = twin[shared.name]
        elif low >= 0:
            parameters = (max(0.9 * high, 1e-6) / 255, 0, 0, 255)
        else:
            parameters = (0.9 * max(-low, high) / 127, 0, -128, 127)
        twin[node.name] = parameters
        name = f"{node.name}_quant"
        traced.add_submodule(name, activation(*parameters))
        with traced.graph.inserting_after(node):
            quantizer = traced.graph.call_module(name, (node,))
        node.replace_all_uses_with(
            quantizer, delete_user_cb=lambda user, own=quantizer: user is not own
        )
    traced.graph.lint()
    traced.recompile()
    return traced.eval()


# One quantised Linear whose float weight sits in different places.
class ParameterWeight(nn.Module):
    """The weight is a parameter, as training leaves it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.weight = nn.Parameter(torch.randn(6, 8))
        self.input_quant = QcdqActivation(0.02, 0, -128, 127)
        self.weight_quant = QcdqWeight(self.weight)

    def forward(self, x):
        return F.linear(self.input_quant(x), self.weight_quant(self.weight))


class BufferWeight(nn.Module):
    """The weight is a buffer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.register_buffer("weight", torch.randn(6, 8))
        self.input_quant = QcdqActivation(0.02, 0, -128, 127)
        self.weight_quant = QcdqWeight(self.weight)

    def forward(self, x):
        return F.linear(self.input_quant(x), self.weight_quant(self.weight))


class ConstantWeight(nn.Module):
    """The weight belongs to no module: a trace holds it, its scale and zero point as constants."""

    def __init__(self, quantizers="qcdq"):
        super().__init__()
        torch.manual_seed(3)
        weight = torch.randn(6, 8)
        scale = weight.abs().amax(1) / 127
        self.hidden = [weight, scale, torch.zeros(6, dtype=torch.int32)]
        self.quantizers = quantizers

    def forward(self, x):
        weight, scale, zero_point = self.hidden
        if self.quantizers == "qcdq":
            return F.linear(
                torch.ops.qcdq.fake_quantize(
                    x, torch.tensor(0.02), torch.tensor(0, dtype=torch.int32), -128, 127
                ),
                torch.ops.qcdq.fake_quantize(weight, scale, zero_point, -127, 127, axis=0),
            )
        return F.linear(
            torch.fake_quantize_per_tensor_affine(x, 0.02, 0, -128, 127),
            torch.fake_quantize_per_channel_affine(weight, scale, zero_point, 0, -127, 127),
        )


def save(model, path, form, example):
    """Writes `model` as a scripted or a traced .pt file."""
    model = model.eval()
    with torch.no_grad():
        script = torch.jit.script(model) if form == "script" else torch.jit.trace(model, example)
    torch.jit.save(script, str(path))
    return script
