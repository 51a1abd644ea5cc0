# Programs of torch.export (.pt2) through `qcdq export --verify`, and once more through ONNX Runtime
# from Python against the eager model.
import json
import math
import subprocess
import sys

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.export import Dim, export

import models
from conftest import count_ops, relative_difference, run_ort


def save(program, path):
    torch.export.save(program, str(path))
    return path


def convert(qcdq, path, *arguments):
    """The .onnx file of a .pt2 file, verified, and its report."""
    output = path.with_suffix(".onnx")
    result = qcdq("export", path, "-o", output, "--verify", "--json", *arguments)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["verify"]["ok"]
    assert report["verify"]["codes_differing"] == 0
    onnx.checker.check_model(str(output), full_check=True)
    return output, report


def refused(qcdq, path, *arguments):
    output = path.with_suffix(".onnx")
    result = qcdq("export", path, "-o", output, *arguments)
    assert result.returncode == 1
    assert not output.exists()
    assert result.stderr.count("\n") == 1
    return result.stderr


def axes(path):
    """{input: its dimensions} of an .onnx file; a dynamic one is its name."""
    return {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in onnx.load(str(path), load_external_data=False).graph.input
    }


def assert_equal_to_eager(path, model, inputs, tolerance=1e-4):
    with torch.no_grad():
        expected = model(*[x.clone() for x in inputs])
    expected = [expected] if torch.is_tensor(expected) else list(expected)
    actual = run_ort(path, *inputs, optimize=False)
    assert len(actual) == len(expected)
    for mine, theirs in zip(actual, expected, strict=True):
        assert mine.shape == theirs.shape
        assert mine.dtype == theirs.dtype
        assert relative_difference(theirs.double(), mine.double()) < tolerance


FORMS = {
    "exported": lambda program: program,
    "functional": lambda program: program.run_decompositions({}),
    "core": lambda program: program.run_decompositions(),
}


@pytest.mark.parametrize("form", FORMS)
def test_resnet18(qcdq, tmp_path, form):
    model = models.float_model("resnet18")
    x = torch.randn(2, 3, 64, 64)
    program = FORMS[form](export(model, (x,), dynamic_shapes={"x": {0: Dim("n", max=64)}}))
    output, _ = convert(qcdq, save(program, tmp_path / "m.pt2"), "--dynamic", "x:0=N")
    counts = count_ops(output)
    assert (counts["Conv"], counts["Relu"], counts["Gemm"]) == (20, 17, 1)
    assert "BatchNormalization" not in counts
    assert axes(output) == {"x": ["N", 3, 64, 64]}
    for batch in (1, 3):
        assert_equal_to_eager(output, model, [torch.randn(batch, 3, 64, 64)])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("quantizers", ["qcdq", "aten"])
def test_quantized_resnet18(qcdq, tmp_path, quantizers, form):
    """The same codes and nodes as the TorchScript file of the model."""
    model = models.quantized_model(models.float_model("resnet18"), quantizers)
    x = torch.randn(2, 3, 224, 224)
    # torch.export has no symbolic shapes for aten's quantisers.
    dynamic = {"x": {0: Dim("n", max=64)}} if quantizers == "qcdq" else None
    program = FORMS[form](export(model, (x,), dynamic_shapes=dynamic))
    output, report = convert(qcdq, save(program, tmp_path / "m.pt2"))
    assert report["verify"]["codes_compared"] > 0

    script = tmp_path / "m.pt"
    models.save(model, script, "trace", x)
    other = tmp_path / "script.onnx"
    axis = ("--dynamic", "x:0=N") if dynamic else ()
    result = qcdq("export", script, "-o", other, "--input", "x=f32[2,3,224,224]", *axis)
    assert result.returncode == 0, result.stderr
    mine, theirs = count_ops(output), count_ops(other)
    for op in ("QuantizeLinear", "DequantizeLinear", "Clip", "Conv", "Add", "Gemm"):
        assert mine.get(op) == theirs.get(op), op
    for batch in (1, 3) if dynamic else (2,):
        image = torch.randn(batch, 3, 224, 224)
        assert (
            relative_difference(
                run_ort(other, image, optimize=False)[0], run_ort(output, image, optimize=False)[0]
            )
            < 1e-5
        )


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1"])
def test_networks(qcdq, tmp_path, name):
    model = models.float_model(name)
    x = torch.randn(1, 3, 96, 96)
    output, _ = convert(qcdq, save(export(model, (x,)), tmp_path / "m.pt2"))
    assert axes(output) == {"x": [1, 3, 96, 96]}
    assert_equal_to_eager(output, model, [x])


def test_names_follow_the_module_path(qcdq, tmp_path):
    model = models.float_model("resnet18")
    path = save(export(model, (torch.randn(1, 3, 64, 64),)), tmp_path / "m.pt2")
    output, _ = convert(qcdq, path)
    names = {node.name for node in onnx.load(str(output)).graph.node}
    for expected in ("conv1/Conv", "layer1.0.conv1/Conv", "layer2.0.downsample.0/Conv", "fc/Gemm"):
        assert expected in names, sorted(names)


class Containers(nn.Module):
    """Nested containers, None and numbers among inputs and outputs, buffers that are not saved."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.register_buffer("scratch", torch.randn(2), persistent=False)
        self.constant = torch.randn(3, 2).t()

    def forward(self, pair, y, count=3, nothing=None, *, flag=True):
        a, b = pair["a"], pair["b"][0]
        size = a.shape[0] * 2 + 1
        first = a @ self.weight[:2] + self.constant[:1].sum() + count
        if flag:
            first = -first
        return (
            {"first": first, "rest": (b.new_zeros(size, a.shape[0]), None, 3, size)},
            y.reshape(a.shape[0], -1).to(torch.float64),
            b[1 : a.shape[0] + 1] * self.scratch.sum(),
        )


def test_containers(qcdq, tmp_path):
    model = Containers()
    pair = {"a": torch.randn(3, 2), "b": [torch.randn(9)]}
    rows = Dim("rows", min=2, max=8)
    program = export(
        model,
        (pair, torch.randn(3, 5, 2)),
        {"flag": False},
        dynamic_shapes={"pair": {"a": {0: rows}, "b": [None]}, "y": {0: rows}, "flag": None},
    )
    path = save(program, tmp_path / "m.pt2")
    output, report = convert(qcdq, path, "--dynamic", "y:0=rows")
    assert axes(output) == {"pair_a": ["rows", 2], "pair_b_0": [9], "y": ["rows", 5, 2]}
    notes = "\n".join(report["notes"])
    for line in (
        "output 2 of the model is None and left out",
        "output 3 of the model is the constant 3 and left out",
        "output 4 of the model is a number: a tensor without dimensions",
    ):
        assert line in notes
    for rows in (2, 8):
        a, b, y = torch.randn(rows, 2), torch.randn(9), torch.randn(rows, 5, 2)
        with torch.no_grad():
            tree, cast, last = model({"a": a, "b": [b]}, y, flag=False)
        zeros, _, _, size = tree["rest"]
        expected = [tree["first"], zeros, torch.tensor(size), cast, last]
        actual = run_ort(output, a, b, y)
        for mine, theirs in zip(actual, expected, strict=True):
            assert mine.dtype == theirs.dtype
            torch.testing.assert_close(mine, theirs)


class Regions(nn.Module):
    """no_grad, several results of one op, a constant made in forward."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        with torch.no_grad():
            y = self.linear(x)
        values, index = torch.max(y, 1)
        left, right = y.chunk(2, 1)
        return y + values.unsqueeze(1) * torch.tensor(2.5), left, right, index


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(True))
        self.deep = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(True))
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.last = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        shallow = self.down(x)
        deep = self.up(self.deep(F.max_pool2d(shallow, 2)))
        return torch.sigmoid(self.last(torch.cat([deep, shallow], 1)))


class Attention(nn.Module):
    def forward(self, q, k, v):
        weights = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(q.size(-1))
        return torch.matmul(weights.softmax(-1), v)


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(8)
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])

    def forward(self, x):
        outputs = [torch.relu(layer(x)) for layer in self.layers]
        for i in range(4):
            x = x + i
        return torch.stack([*outputs, x], 0).mean(0)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(9)
        self.embedding = nn.Embedding(50, 16)
        self.norm = nn.LayerNorm(16)
        self.query = nn.Linear(16, 16)
        self.out = nn.Linear(16, 5)

    def forward(self, ids):
        batch, length = ids.shape
        x = self.norm(self.embedding(ids))
        heads = self.query(x).view(batch, length, 4, -1).transpose(1, 2)
        y = F.scaled_dot_product_attention(heads, heads, heads)
        y = y.transpose(1, 2).reshape(batch, length, -1)
        return F.log_softmax(self.out(F.gelu(y + x)), -1)


SMALL = {
    "regions": (Regions, [(2, 4)], None),
    "unet": (UNet, [(1, 3, 16, 16)], None),
    "unet_batches": (UNet, [(2, 3, 16, 16)], {"x": {0: Dim("n", max=16)}}),
    "attention": (Attention, [(1, 2, 5, 8)] * 3, None),
    "loop": (Loop, [(2, 4)], {"x": {0: Dim("n", max=16)}}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SMALL)
def test_small_models(qcdq, tmp_path, name, form):
    make, shapes, dynamic = SMALL[name]
    model = make().eval()
    inputs = [torch.randn(shape) for shape in shapes]
    program = FORMS[form](export(model, tuple(inputs), dynamic_shapes=dynamic))
    output, _ = convert(qcdq, save(program, tmp_path / "m.pt2"))
    assert_equal_to_eager(output, model, inputs)
    if dynamic:
        larger = [torch.randn(5, *shape[1:]) for shape in shapes]
        assert_equal_to_eager(output, model, larger)


@pytest.mark.parametrize("form", ["exported", "functional"])  # core has aten::any.dim
def test_sequences_of_any_length(qcdq, tmp_path, form):
    """Two dynamic axes, used in views; integer inputs."""
    model = Encoder().eval()
    ids = torch.randint(0, 50, (2, 7))
    shapes = {"ids": {0: Dim("batch", max=32), 1: Dim("length", min=2, max=64)}}
    program = FORMS[form](export(model, (ids,), dynamic_shapes=shapes))
    path = save(program, tmp_path / "m.pt2")
    output, _ = convert(
        qcdq, path, "--dynamic", "ids:0=B", "ids:1=L", "--input", "ids=i64[2,7]{0..49}"
    )
    assert axes(output) == {"ids": ["B", "L"]}
    for shape in ((1, 2), (3, 11)):
        assert_equal_to_eager(output, model, [torch.randint(0, 50, shape)])


def test_derived_sizes(qcdq, tmp_path):
    """An axis that is twice another one has that as its name."""

    class Pairs(nn.Module):
        def forward(self, x, y):
            return x + y.view(-1, 2).sum(1)

    n = Dim("n", min=2, max=50)
    program = export(
        Pairs(), (torch.randn(3), torch.randn(6)), dynamic_shapes={"x": {0: n}, "y": {0: 2 * n}}
    )
    output, _ = convert(qcdq, save(program, tmp_path / "m.pt2"), "--dynamic", "x:0=N")
    assert axes(output) == {"x": ["N"], "y": ["2*N"]}
    x, y = torch.randn(7), torch.randn(14)
    torch.testing.assert_close(run_ort(output, x, y)[0], Pairs()(x, y))


def test_symbols_without_names(qcdq, tmp_path):
    program = export(Loop(), (torch.randn(2, 4),), dynamic_shapes={"x": {0: Dim("n", max=9)}})
    path = save(program, tmp_path / "m.pt2")
    output, _ = convert(qcdq, path)
    (symbol,) = program.range_constraints
    assert axes(output) == {"x": [str(symbol), 4]}
    # Verified later, and at another size.
    assert qcdq("verify", path, output).returncode == 0
    result = qcdq("verify", path, output, "--input", "x=[9,4]")
    assert result.returncode == 0, result.stderr
    result = qcdq("verify", path, output, "--input", "x=[10,4]")
    assert result.returncode == 1
    assert "is 10, the program takes" in result.stderr


def test_tied_weights_are_one_initializer(qcdq, tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(8, 8, bias=False)
            self.second = nn.Linear(8, 8, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(F.relu(self.first(x)))

    model = Tied()
    x = torch.randn(2, 8)
    output, _ = convert(qcdq, save(export(model, (x,)), tmp_path / "m.pt2"))
    assert_equal_to_eager(output, model, [x])
    assert len(onnx.load(str(output)).graph.initializer) == 1


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count.add_(1)
        return x + self.count


@pytest.mark.parametrize("form", ["exported", "functional"])
def test_changed_buffers_are_refused(qcdq, tmp_path, form):
    program = FORMS[form](export(Counter(), (torch.randn(2),)))
    line = refused(qcdq, save(program, tmp_path / "m.pt2"))
    assert "'count' as it runs" in line


@pytest.mark.parametrize("name", ["cond", "while_loop"])
def test_higher_order_ops_are_refused(qcdq, tmp_path, name):
    class Branch(nn.Module):
        def forward(self, x):
            return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))

    class While(nn.Module):
        def forward(self, x):
            return torch.ops.higher_order.while_loop(
                lambda x: x.sum() < 9, lambda x: (x + 1,), (x,), ()
            )[0]

    model = Branch() if name == "cond" else While()
    path = save(export(model, (torch.ones(2, 3),)), tmp_path / "m.pt2")
    line = refused(qcdq, path)
    assert f"higher_order::{name}" in line
    assert "test_pt2.py:" in line


def test_wrong_inputs_are_named(qcdq, tmp_path):
    path = save(export(Loop(), (torch.randn(2, 4),)), tmp_path / "m.pt2")
    assert "axis 0 is 3, the program takes only 2" in refused(qcdq, path, "--input", "x=[3,4]")
    line = refused(qcdq, path, "--dynamic", "x:0=N")
    assert "the program fixes the size to 2; export it with dynamic_shapes" in line
    for arguments, text in {
        ("--input", "y=[2,4]"): "the model has no such input, it has: x",
        ("--input", "x=i64[2,4]"): "is Long, the model takes Float",
    }.items():
        result = qcdq("export", path, "-o", tmp_path / "m.onnx", *arguments)
        assert result.returncode == 2
        assert text in result.stderr


def test_no_second_copy_of_the_weights(qcdq, tmp_path):
    """Loading maps the file: the program's peak memory holds one written copy at most."""

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4096, 8192))

        def forward(self, x):
            return F.linear(x, self.weight)

    path = save(export(Wide(), (torch.randn(1, 8192),)), tmp_path / "m.pt2")
    output = tmp_path / "m.onnx"
    script = (
        "import resource, subprocess, sys; r = subprocess.run(sys.argv[1:]).returncode; "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(r)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, qcdq.path, "export", str(path), "-o", str(output)],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    peak = int(result.stdout.split()[-1]) * 1024
    weights = 4096 * 8192 * 4
    assert peak < 2.5 * weights + 300e6, peak
