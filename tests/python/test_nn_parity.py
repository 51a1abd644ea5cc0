# Layers of qcdq.nn against the C++ ones (torch_plugin/archive_program.cpp): the same archive, the
# same outputs, the same training; and what qcdq.nn refuses. Code under test: python/qcdq/.
import copy
import pathlib
import subprocess

import pytest
import torch

import qcdq
from qcdq import nn as qnn

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Net(torch.nn.Module):
    """The net of archive_program.cpp."""

    def __init__(self):
        super().__init__()
        self.input = qnn.QuantIdentity(qcdq.int8().scaling(qcdq.Scaling.MINMAX))
        self.conv = qnn.QuantConv2d(
            1,
            4,
            3,
            padding=1,
            weight=qcdq.int4().per_channel(0).narrow(),
            input=qcdq.int8().collect_steps(2),
        )
        self.relu = qnn.QuantReLU(qcdq.uint4().collect_steps(2))
        self.up = qnn.QuantConvTranspose2d(
            4, 2, 2, stride=2, groups=2, input=qcdq.uint8().power_of_two()
        )
        self.shifted = qnn.QuantIdentity(qcdq.uint8().symmetric(False).collect_steps(2))
        self.fc = qnn.QuantLinear(256, 16)
        self.fc.set_input_quantizer(self.relu.act_quant)
        self.line = qnn.QuantConv1d(1, 2, 3, weight=qcdq.int8().scaling(qcdq.Scaling.LEARNED))
        self.line_up = qnn.QuantConvTranspose1d(2, 2, 3, bias=False, weight=qcdq.int3())
        self.head = qnn.QuantLinear(560, 5, bias=None, weight=qcdq.int4().blocked(1, 32))

    def forward(self, x):
        x = self.relu(self.conv(self.input(x)))
        a = self.fc(x.flatten(1))
        b = self.shifted(self.up(x)).flatten(1)
        c = self.line_up(self.line(a.unsqueeze(1))).flatten(1)
        return self.head(torch.cat([a, b, c], 1))


def batch(phase):
    return torch.sin(torch.arange(128, dtype=torch.float32) * 0.37 + phase).view(2, 1, 8, 8)


def train(net, steps):
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    for step in range(steps):
        optimizer.zero_grad()
        net(batch(step)).square().mean().backward()
        optimizer.step()
    return net.eval()


@pytest.fixture
def net():
    torch.manual_seed(3)
    return train(Net(), 1)


@pytest.fixture(scope="module")
def program():
    path = ROOT / "build" / "bin" / "archive_program"
    assert path.exists(), "archive_program is not built: run ./dev build"

    def run(*arguments):
        done = subprocess.run(
            [str(path), *map(str, arguments)], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return [torch.tensor([float(v) for v in line.split()]) for line in done.stdout.splitlines()]

    return run


def test_archive_from_python_gives_the_same_net_in_cpp_and_back(net, program, tmp_path):
    qcdq.save_cpp_archive(net, tmp_path / "in.pt")
    before, after = program(tmp_path / "in.pt", tmp_path / "out.pt", 5)
    with torch.no_grad():
        assert torch.equal(net(batch(0.5)).flatten(), before)
        back = Net()
        qcdq.load_cpp_archive(back, tmp_path / "out.pt")
        assert torch.equal(back.eval()(batch(0.5)).flatten(), after)
    assert list(back.state_dict()) == list(net.state_dict())


def test_training_in_python_arrives_where_cpp_does(net, program, tmp_path):
    qcdq.save_cpp_archive(net, tmp_path / "in.pt")
    program(tmp_path / "in.pt", tmp_path / "out.pt", 5)
    in_cpp = Net()
    qcdq.load_cpp_archive(in_cpp, tmp_path / "out.pt")
    in_cpp = in_cpp.eval().state_dict()
    in_python = train(net, 5).state_dict()
    for name, value in in_python.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, in_cpp[name], rtol=1e-6, atol=1e-7, msg=name)
        else:
            assert torch.equal(value, in_cpp[name]), name


def test_state_dict_round_trip_and_pickle(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "net.pth")
    loaded = Net().eval()
    loaded.load_state_dict(torch.load(tmp_path / "net.pth"))
    with torch.no_grad():
        assert torch.equal(loaded(batch(1)), net(batch(1)))
        assert torch.equal(copy.deepcopy(net)(batch(1)), net(batch(1)))
    torch.save(net, tmp_path / "whole.pth")
    whole = torch.load(tmp_path / "whole.pth", weights_only=False)
    assert torch.equal(whole(batch(1)), net(batch(1)))


def test_state_saved_in_training_is_frozen_after_loading(net):
    expected = net(batch(1))
    net.train()
    loaded = Net().eval()
    loaded.load_state_dict(net.state_dict())
    assert torch.equal(loaded(batch(1)), expected)


def test_another_spec_in_the_file_is_refused():
    four = qnn.QuantReLU(qcdq.uint4())
    with pytest.raises(
        ValueError, match="the file holds a quantiser uint4 learned; expected uint8"
    ):
        qnn.QuantReLU().load_state_dict(four.state_dict())


def test_eval_before_statistics_names_the_layer():
    net = torch.nn.Sequential(qnn.QuantReLU())
    qnn.name_layers(net)
    with pytest.raises(RuntimeError, match=r"QuantReLU '0': eval mode before any statistics"):
        net.eval()(torch.ones(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: qnn.QuantLinear(2, 2, weight=qcdq.intn(9)),
            "weight quantiser int9; expected 2 to",
        ),
        (lambda: qnn.QuantReLU(qcdq.uintn(17)), "activation quantiser uint17; expected 2 to 16"),
        (lambda: qnn.QuantIdentity(qcdq.int8().per_channel(1)), "expected per_tensor"),
        (
            lambda: qnn.QuantLinear(2, 2, weight=qcdq.int8().per_channel(2)),
            "expected an axis of a weight with 2 dimensions",
        ),
        (lambda: qnn.QuantLinear(0, 2), "QuantLinear: in_features = 0"),
        (lambda: qnn.QuantConv2d(3, 4, 3, groups=2), "groups = 2; expected channels"),
        (
            lambda: qnn.QuantLinear(2, 2, qcdq.int32(), weight=None),
            "bias = int32 with weight = float; expected a weight quantised",
        ),
        (
            lambda: qnn.QuantLinear(2, 2, qcdq.uint8()),
            "expected a signed symmetric range of 8 to 32",
        ),
        (lambda: qcdq.intn(1), r"bits = 1 \(signed\); expected 2 or more"),
        (lambda: qcdq.uintn(32), r"bits = 32 \(unsigned\); expected 31"),
        (lambda: qcdq.uint8().narrow(), "narrow = true .unsigned.; expected a signed range"),
        (lambda: qcdq.int8().fixed(0), "fixed scale = 0; expected a finite float32"),
        (lambda: qcdq.int8().blocked(0, 0), "block_size = 0; expected 1 or more"),
        (lambda: qcdq.int8().percentile(50), "percentile = 50; expected more than 50"),
        (lambda: qcdq.int8().collect_steps(0), "collect_steps = 0; expected 1 or more"),
        (lambda: qcdq.int8().scaling(qcdq.Scaling.FIXED), r"expected fixed\(scale\)"),
        (lambda: qcdq.QuantSpec.from_integers([8]), "number of stored fields = 1; expected 12"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_specs_print_compare_and_go_through_integers():
    spec = qcdq.int4().per_channel(0).narrow().scaling(qcdq.Scaling.LEARNED).percentile(99)
    assert str(spec) == "int4 narrow per_channel(0) learned rank(99)"
    assert qcdq.QuantSpec.from_integers(spec.to_integers()) == spec
    assert (spec.quant_min, spec.quant_max, spec.divisor) == (-7, 7, 7)
    assert (qcdq.uint4().quant_min, qcdq.uint4().quant_max) == (0, 15)
    assert str(qcdq.int8().fixed(0.5).power_of_two()) == "int8 fixed(0.5) power_of_two"


def test_weights_of_zero_get_a_scale_that_holds_the_bias():
    layer = qnn.QuantLinear(4, 2, weight=qcdq.int8().per_channel(0), input=qcdq.int8())
    with torch.no_grad():
        layer.weight[0] = 0
        layer.bias.copy_(torch.tensor([5.0, 0.25]))
    layer.train()
    layer(torch.randn(8, 4))
    y = layer.eval()(torch.zeros(1, 4))
    torch.testing.assert_close(y, torch.tensor([[5.0, 0.25]]), rtol=1e-6, atol=1e-3)
    assert layer.weight_quant.scale[0] > 1e-10


def test_half_keeps_scales_in_float32(net):
    net.half()
    assert net.fc.weight.dtype == torch.float16
    for name, buffer in net.named_buffers():
        assert buffer.dtype in (torch.float32, torch.int32, torch.int64), name
