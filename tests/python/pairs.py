# Models and bit widths that go through every exporter: the C++ tutorial's three models, a digits
# CNN, others of quantised layers, and ResNet-18; torch.onnx with qcdq's hooks; what a file's codes
# are. test_pairs.py and test_torch_onnx.py use them.
import hashlib

import numpy
import onnx
import torch

import models
import qcdq
from conftest import ort_session, relative_difference, run_ort
from qcdq import nn as qnn


class Digits(torch.nn.Module):
    """A convolutional net: quantised input, weights, activations and biases."""

    def __init__(self, weight, act):
        super().__init__()
        self.conv = qnn.QuantConv2d(1, 8, 3, padding=1, weight=weight, input=qcdq.int8())
        self.relu = qnn.QuantReLU(act)
        self.fc = qnn.QuantLinear(8 * 4 * 4, 10, weight=weight)
        self.fc.set_input_quantizer(self.relu.act_quant)

    def forward(self, x):
        x = torch.nn.functional.max_pool2d(self.relu(self.conv(x)), 2)
        return self.fc(x.flatten(1))


class Mlp(torch.nn.Module):
    """Linear layers over three dimensions; shifted activations, one weight float."""

    def __init__(self, weight, act):
        super().__init__()
        self.a = qnn.QuantLinear(8, 16, weight=weight)
        self.act = qnn.QuantIdentity(act)
        self.b = qnn.QuantLinear(16, 4, weight=weight, bias=False)

    def forward(self, x):
        return self.b(torch.tanh(self.act(self.a(x))))


class Up(torch.nn.Module):
    """Transposed and plain 1-d convolutions."""

    def __init__(self, weight, act):
        super().__init__()
        self.up = qnn.QuantConvTranspose1d(3, 6, 2, stride=2, weight=weight, input=act)
        self.relu = qnn.QuantReLU()
        self.conv = qnn.QuantConv1d(6, 4, 3, weight=weight)
        self.conv.set_input_quantizer(self.relu.act_quant)

    def forward(self, x):
        return self.conv(self.relu(self.up(x)))


class Tutorial(torch.nn.Module):
    """docs/tutorial.md's ReLU nets; without an activation its first model, one layer."""

    def __init__(self, weight, act):
        super().__init__()
        self.fc1 = qnn.QuantLinear(3, 128, weight=weight)
        self.relu = None
        if act is not None:
            self.relu = qnn.QuantReLU(act)
            self.fc2 = qnn.QuantLinear(128, 10, weight=weight)
            self.fc2.set_input_quantizer(self.relu.act_quant)

    def forward(self, x):
        return self.fc1(x) if self.relu is None else self.fc2(self.relu(self.fc1(x)))


def resnet18(weight, act):
    """ResNet-18 with every Conv and Linear quantised, their inputs and biases too; BatchNorm is in
    the weights already, because torch.onnx has no pass that could move it there."""
    net = models.float_model("resnet18")
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.BatchNorm2d):
                conv = {"bn1": "conv1", "bn2": "conv2", "1": "0"}[name]
                fused = torch.nn.utils.fuse_conv_bn_eval(getattr(parent, conv), child)
                setattr(parent, conv, _quantized(fused, weight, act))
                setattr(parent, name, torch.nn.Identity())
    net.fc = _quantized(net.fc, weight, act)
    return net


def _quantized(layer, weight, act):
    if isinstance(layer, torch.nn.Linear):
        made = qnn.QuantLinear(layer.in_features, layer.out_features, weight=weight, input=act)
    else:
        made = qnn.QuantConv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            weight=weight,
            input=act,
        )
    made.load_state_dict(layer.state_dict(), strict=False)
    return made


int8, int4, int3, uint8, uint4 = qcdq.int8, qcdq.int4, qcdq.int3, qcdq.uint8, qcdq.uint4
# name: net, weights, activations, shape of the example
PAIRS = {
    "tutorial-w8": (Tutorial, int8().narrow(), None, (4, 3)),
    "tutorial-w8c-a8": (Tutorial, int8().narrow().per_channel(0), uint8(), (4, 3)),
    "tutorial-w3-a4": (Tutorial, int3().narrow(), uint4(), (4, 3)),
    "digits-w8c-a8": (Digits, int8().narrow().per_channel(0), uint8(), (2, 1, 8, 8)),
    "digits-w4a4": (Digits, int4().narrow(), uint4(), (2, 1, 8, 8)),
    "digits-w4c-a4": (Digits, int4().narrow().per_channel(0), uint4(), (2, 1, 8, 8)),
    "digits-w3-a4": (Digits, int3().narrow(), uint4(), (2, 1, 8, 8)),
    "digits-shifted": (Digits, int8(), uint8().symmetric(False), (2, 1, 8, 8)),
    "mlp-w8a8": (Mlp, int8().narrow(), int8(), (2, 5, 8)),
    "mlp-w4-a3": (Mlp, int4(), int3(), (2, 5, 8)),
    "mlp-shifted4": (Mlp, int8(), uint4().symmetric(False), (2, 5, 8)),
    "mlp-fixed": (Mlp, int4().fixed(0.125), int8().power_of_two(), (2, 5, 8)),
    "up-w8a8": (Up, int8(), uint8(), (2, 3, 9)),
    "up-w4c-a4": (Up, int4().per_channel(1), int4(), (2, 3, 9)),
    "resnet18-w8c-a8": (resnet18, int8().narrow().per_channel(0), int8(), (1, 3, 64, 64)),
    "resnet18-w4c-a4": (resnet18, int4().narrow().per_channel(0), int4(), (1, 3, 64, 64)),
}


def make_net(pair):
    """The trained-looking net of a pair in eval mode, and an input."""
    net_type, weight, act, shape = PAIRS[pair]
    torch.manual_seed(sum(map(ord, pair)))
    net = net_type(weight, act).train()
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(shape))
    return net.eval(), torch.randn(shape)


def torch_onnx(net, x, path, dynamo, opset, **keywords):
    if dynamo:
        keywords["custom_translation_table"] = qcdq.translation_table(opset)
    else:
        qcdq.register_onnx()
    torch.onnx.export(net, (x,), str(path), dynamo=dynamo, opset_version=opset, **keywords)
    return path


def all_codes(path, x):
    """What the file quantises to: for every DequantizeLinear how many codes it has, and a digest of
    the codes less their zero point, sorted. A set: torch.onnx's optimiser (dynamo=True) merges
    quantisers that compute the same."""
    model = onnx.load(str(path))
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.op_type == "DequantizeLinear"]
    known = {o.name for o in model.graph.output}
    names = [n for node in nodes for n in (node.input[0], *node.input[2:]) if n not in constants]
    for name in dict.fromkeys(names):
        if name not in known:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    changed = path.with_suffix(".codes.onnx")
    onnx.save(model, str(changed))
    session = ort_session(changed, optimize=False)
    outputs = [o.name for o in session.get_outputs()]
    values = dict(
        zip(outputs, session.run(None, {session.get_inputs()[0].name: x.numpy()}), strict=True)
    )
    values.update(constants)
    result = set()
    for node in nodes:
        codes = values[node.input[0]].astype(numpy.int64)
        zero = values[node.input[2]].astype(numpy.int64) if len(node.input) > 2 else numpy.zeros(1)
        assert zero.size == 1 or not zero.any()
        codes = numpy.sort(codes.ravel() - int(zero.ravel()[0]))
        result.add((codes.size, hashlib.sha256(codes.tobytes()).hexdigest()))
    return result


def check_file(path, x):
    """onnx's checker takes the file, and ORT loads and runs it as it would be used."""
    onnx.checker.check_model(str(path), full_check=True)
    # ORT's fused kernels saturate on CPUs without VNNI, and files of torch.onnx, which share scale
    # initializers, don't load where they are asked not to: those have to load and run, no more.
    assert run_ort(path, x, exact=False)[0].isfinite().all()


def check(path, net, x):
    """check_file, and eager's outputs."""
    check_file(path, x)
    with torch.no_grad():
        expected = net(x)
    assert relative_difference(expected, run_ort(path, x, optimize=False)[0]) < 1e-5
