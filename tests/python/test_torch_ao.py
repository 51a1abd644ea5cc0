# Networks that torch.ao has quantised, through `qcdq export --verify`: eager and FX, trained (QAT)
# and calibrated, as fake quantisers, quantized_decomposed and integer kernels (quantized::*).
# torch.ao's PT2E is not part of torch 2.15; FX's decomposed form has the same ops.
import json
import warnings

import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import nn

import models
from conftest import count_ops, ort_session, run_session

warnings.filterwarnings(
    "ignore", message=".*torch.ao.*|.*torch.jit.*|.*quantized.*|.*reduce_range.*"
)
ao = pytest.importorskip("torch.ao.quantization")
quantize_fx = pytest.importorskip("torch.ao.quantization.quantize_fx")

SPEC = "x=f32[2,3,16,16]"
SHAPE = (2, 3, 16, 16)


class Eager(nn.Module):
    def __init__(self):
        super().__init__()
        self.quant, self.dequant = ao.QuantStub(), ao.DeQuantStub()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.add = nn.quantized.FloatFunctional()
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        x = self.relu(self.bn(self.conv(self.quant(x))))
        x = self.add.add_relu(x, self.conv2(x))
        x = F.adaptive_avg_pool2d(F.max_pool2d(x, 2), (2, 2))
        return self.dequant(self.fc(torch.flatten(x, 1)))


class Wide(nn.Module):
    """Every op of quantized:: that FX makes of an image classifier."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.act = nn.Hardswish()
        self.point = nn.Conv2d(8, 8, 1, bias=False)
        self.fc = nn.Linear(16, 10)
        self.leaky = nn.LeakyReLU(0.1)

    def forward(self, x):
        x = self.act(self.bn(self.conv(x)))
        x = torch.cat([x, F.relu6(self.point(x))], 1)
        x = F.avg_pool2d(x * torch.sigmoid(x), 2)
        return self.leaky(self.fc(x.mean((2, 3))))


class Layers(nn.Module):
    """One-, two- and three-dimensional convolutions, transposed ones, groups, normalisations."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv1d(3, 4, 5, stride=2, padding=4, dilation=2)
        self.two = nn.Conv2d(4, 4, (3, 1), stride=(2, 1), padding=(1, 0), groups=2)
        self.three = nn.Conv3d(4, 6, 3, padding=1)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2, output_padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.elu = nn.ELU()

    def forward(self, x):
        x = F.relu(self.one(x.flatten(2)))
        x = self.two(x.reshape(x.shape[0], 4, 8, -1))
        x = self.three(x.unsqueeze(2)).squeeze(2)
        return self.elu(self.norm(self.up(x)))


def batches(count=4):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(SHAPE, generator=generator) for _ in range(count)]


def calibrate(model):
    with torch.no_grad():
        for x in batches():
            model(x)
    return model


def eager(qat=False, version=None):
    torch.manual_seed(1)
    model = Eager().train(qat)
    fuse = ao.fuse_modules_qat if qat else ao.fuse_modules
    if not qat:
        model = calibrate(model.train()).eval()
    model = fuse(model, [["conv", "bn", "relu"]])
    if qat:
        keywords = {} if version is None else {"version": version}
        model.qconfig = ao.get_default_qat_qconfig("x86", **keywords)
        model = calibrate(ao.prepare_qat(model)).eval()
        return model.apply(ao.disable_observer)
    model.qconfig = ao.get_default_qconfig("x86")
    return calibrate(ao.prepare(model))


def fx(kind, qat=False):
    torch.manual_seed(2)
    model = kind().train(qat)
    x = (batches(1)[0],)
    if qat:
        mapping = ao.get_default_qat_qconfig_mapping("x86")
        model = calibrate(quantize_fx.prepare_qat_fx(model, mapping, x)).eval()
        return model.apply(ao.disable_observer)
    mapping = ao.get_default_qconfig_mapping("x86")
    mapping.set_object_type(nn.ConvTranspose2d, ao.default_qconfig)
    return calibrate(quantize_fx.prepare_fx(model.eval(), mapping, x))


MODELS = {
    "eager": lambda: ao.convert(eager()),
    "eager_qat": lambda: eager(qat=True),
    "eager_qat_unfused": lambda: eager(qat=True, version=0),
    "eager_qat_converted": lambda: ao.convert(eager(qat=True)),
    "fx": lambda: quantize_fx.convert_fx(fx(Wide)),
    "fx_layers": lambda: quantize_fx.convert_fx(fx(Layers)),
    "fx_qat": lambda: fx(Wide, qat=True),
    "fx_reference": lambda: quantize_fx.convert_to_reference_fx(fx(Wide)),
    "fx_decomposed": lambda: quantize_fx._convert_to_reference_decomposed_fx(fx(Wide)),
}
# torch itself can't script what observers hook, nor the operators in FX's decomposed text.
TRACED_ONLY = {"eager_qat", "eager_qat_unfused", "fx_decomposed"}
CASES = [
    (name, form)
    for name in MODELS
    for form in ("script", "trace")
    if form == "trace" or name not in TRACED_ONLY
]


@pytest.fixture(scope="module")
def ao_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch_ao")

    def make(name, form):
        path = folder / f"{name}_{form}.pt"
        if not path.exists():
            models.save(MODELS[name](), path, form, batches(1)[0])
        return path

    return make


def export(qcdq, path, output, *arguments):
    return qcdq("export", path, "-o", output, "--input", SPEC, "--verify", "--json", *arguments)


@pytest.mark.parametrize("name, form", CASES)
def test_quantized_by_torch_ao(qcdq, ao_file, tmp_path, name, form):
    path, output = ao_file(name, form), tmp_path / "model.onnx"
    result = export(qcdq, path, output)
    assert result.returncode == 0, result.stderr
    verified = json.loads(result.stdout)["verify"]
    assert verified["ok"]
    assert verified["codes_compared"] > 1000
    assert verified["codes_differing"] == 0

    model = onnx.load(str(output))
    onnx.checker.check_model(model, full_check=True)
    floats = {i.name for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul", "ConvTranspose"):
            assert node.input[1] not in floats, f"{node.name} has a float weight"
    counts = count_ops(output)
    assert "BatchNormalization" not in counts
    assert "Div" not in counts  # of QAT's convolutions, whose weights are scaled before

    # torch rounds integer sums where ONNX rounds float ones: a few codes are a step apart.
    last = next(n for n in reversed(model.graph.node) if n.op_type == "DequantizeLinear")
    step = next(
        numpy_helper.to_array(i).max() for i in model.graph.initializer if i.name == last.input[1]
    )
    reference = torch.jit.load(str(path))
    session = ort_session(output, optimize=False)
    differences = []
    for x in batches(8):
        with torch.no_grad():
            expected = reference(x)
        (actual,) = run_session(session, x)
        differences.append(((expected - actual) / float(step)).abs().flatten())
    steps = torch.cat(differences)
    assert steps.max() < 8  # one code before the last layer is worth several of its small steps
    assert steps.mean() < 0.5


def divide(x, scale, zero_point, quant_min, quant_max, dtype):
    codes = torch.round(x / torch.tensor(scale, dtype=torch.float32)) + zero_point
    return torch.clamp(codes, quant_min, quant_max).to(dtype)


def test_division_explains_every_difference(qcdq, ao_file, tmp_path):
    """torch.ao's model with true division in its quantisers gives what the file gives."""
    output = tmp_path / "model.onnx"
    assert export(qcdq, ao_file("fx_decomposed", "trace"), output).returncode == 0
    model = MODELS["fx_decomposed"]()
    for node in model.graph.nodes:
        if str(node.target) == "quantized_decomposed.quantize_per_tensor.default":
            node.target = divide
    model.recompile()
    session = ort_session(output, optimize=False)
    for x in batches(8):
        with torch.no_grad():
            expected = model(x)
        (actual,) = run_session(session, x)
        assert (expected - actual).abs().max() < 1e-5


def codes_of_weight(output, name):
    tensors = {i.name: i for i in onnx.load(str(output)).graph.initializer}
    return torch.from_numpy(numpy_helper.to_array(tensors[name]).copy())


def test_packed_weights_keep_their_codes(qcdq, ao_file, tmp_path):
    model = MODELS["eager"]()
    output = tmp_path / "model.onnx"
    assert export(qcdq, ao_file("eager", "script"), output).returncode == 0
    for name, layer in (("conv", model.conv), ("conv2", model.conv2), ("fc", model.fc)):
        codes = codes_of_weight(output, f"{name}.weight_quantized")
        assert torch.equal(codes, layer.weight().int_repr())
        scale = codes_of_weight(output, f"{name}.weight_scale")
        assert torch.equal(scale, layer.weight().q_per_channel_scales().float())


def test_integer_layers_fuse(qcdq, ao_file, tmp_path):
    for name in ("eager", "eager_qat", "fx"):
        output, optimized = tmp_path / f"{name}.onnx", tmp_path / f"{name}_ort.onnx"
        assert export(qcdq, ao_file(name, "trace"), output).returncode == 0
        ort_session(output, optimized_path=optimized)
        counts = count_ops(optimized)
        assert counts.get("QLinearConv", 0) == 2, counts
        assert "Conv" not in counts, counts
        # The pooling before the last layer has no quantiser in torch.ao's QAT model.
        assert counts.get("Gemm", 0) == (1 if name == "eager_qat" else 0), counts


def test_dynamic_batch(qcdq, ao_file, tmp_path):
    output = tmp_path / "model.onnx"
    result = export(qcdq, ao_file("eager", "script"), output, "--dynamic", "x:0=N")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["verify"]["ok"]
    (x,) = onnx.load(str(output)).graph.input
    assert x.type.tensor_type.shape.dim[0].dim_param == "N"


class Decomposed(nn.Module):
    def forward(self, x):
        op = torch.ops.quantized_decomposed
        q = op.quantize_per_tensor(x, 0.1, 1, -8, 7, torch.int8)
        return op.dequantize_per_tensor(q, 0.1, 1, -8, 7, torch.int8)


def test_four_bit_range_keeps_its_clip(qcdq, tmp_path):
    path, output = tmp_path / "model.pt", tmp_path / "model.onnx"
    models.save(Decomposed(), path, "trace", batches(1)[0])
    result = export(qcdq, path, output)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["verify"]["codes_differing"] == 0
    assert count_ops(output) == {"QuantizeLinear": 1, "Clip": 1, "DequantizeLinear": 1}
    x = batches(1)[0] * 4
    (y,) = run_session(ort_session(output), x)
    assert torch.equal(y, Decomposed()(x))
    assert y.min() == pytest.approx(-0.9) and y.max() == pytest.approx(0.6)


def refusal(qcdq, tmp_path, model, form="trace"):
    path = tmp_path / "model.pt"
    models.save(model, path, form, batches(1)[0])
    result = export(qcdq, path, tmp_path / "model.onnx")
    assert result.returncode == 1
    return result.stderr


def test_observer_that_is_on(qcdq, tmp_path):
    model = eager(qat=True).apply(ao.enable_observer)
    error = refusal(qcdq, tmp_path, model)
    assert "aten::fused_moving_avg_obs_fake_quant: argument 'observer_on' = 1" in error
    assert "disable_observer" in error


def test_dynamic_quantization(qcdq, tmp_path):
    class Dynamic(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(16, 4)

        def forward(self, x):
            return self.fc(x)

    error = refusal(qcdq, tmp_path, ao.quantize_dynamic(Dynamic().eval()))
    assert "quantized::linear_dynamic" in error
    assert "scale is chosen from the data at run time" in error


def test_quantized_output(qcdq, tmp_path):
    class Ends(nn.Module):
        def forward(self, x):
            return torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)

    error = refusal(qcdq, tmp_path, Ends())
    assert "the model returns a quantised tensor" in error
    assert "DeQuantStub" in error


def test_op_without_float_form(qcdq, tmp_path):
    class Repr(nn.Module):
        def forward(self, x):
            return torch.quantize_per_tensor(x, 0.1, 0, torch.qint8).int_repr()

    error = refusal(qcdq, tmp_path, Repr())
    assert "aten::int_repr: no float form is known for it on quantised tensors" in error
