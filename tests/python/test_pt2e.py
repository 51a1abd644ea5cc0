# Networks quantised by torchao's PT2E, trained (QAT) and calibrated, and the ops they hold
# (quantized_decomposed), through `qcdq export --verify` as .pt and as .pt2 files.
# test_torch_ao.py has torch.ao's eager and FX flows.
import json
import re
import warnings

import numpy
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import nn
from torch.export import export

from conftest import count_ops, run_ort

warnings.filterwarnings("ignore", message=".*torch.ao.*|.*register_constant.*|.*deprecated.*")
pt2e = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e")
x86 = pytest.importorskip("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
arm = pytest.importorskip("torchao.quantization.pt2e.quantizer.arm_inductor_quantizer")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

SHAPE = (2, 3, 16, 16)
FORMS = ("pt", "pt2")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        x = torch.relu(x + self.conv2(x))
        x = F.adaptive_avg_pool2d(F.max_pool2d(x, 2), (2, 2))
        return self.fc(torch.flatten(x, 1))


def x86_quantizer(qat=False):
    config = x86.get_default_x86_inductor_quantization_config(is_qat=qat)
    return x86.X86InductorQuantizer().set_global(config)


def arm_quantizer():
    config = arm.get_default_arm_inductor_quantization_config()
    return arm.ArmInductorQuantizer().set_global(config)


def quantized(quantizer, qat=False, seed=0):
    torch.manual_seed(seed)
    program = export(Net().train(qat), (torch.randn(SHAPE),)).module()
    prepare = pt2e.prepare_qat_pt2e if qat else pt2e.prepare_pt2e
    prepared = prepare(program, quantizer)
    with torch.no_grad():
        for _ in range(4):
            prepared(torch.randn(SHAPE))
    return pt2e.convert_pt2e(prepared)


MODELS = {
    "x86": lambda: quantized(x86_quantizer()),
    "x86_qat": lambda: quantized(x86_quantizer(qat=True), qat=True),
    "arm": lambda: quantized(arm_quantizer()),
}


def save(model, folder, form, shape=SHAPE):
    path = folder / f"model.{form}"
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    if form == "pt2":
        torch.export.save(export(model, (x,)), str(path))
    else:
        with torch.no_grad():
            torch.jit.trace(model, x, check_trace=False).save(str(path))
    return path


def convert(qcdq, path, *arguments):
    output = path.with_suffix(".onnx")
    given = ("--input", "x=f32[2,3,16,16]") if path.suffix == ".pt" else ()
    result = qcdq("export", path, "-o", output, "--verify", "--json", *given, *arguments)
    assert result.returncode == 0, result.stderr
    verified = json.loads(result.stdout)["verify"]
    assert verified["ok"] and verified["codes_differing"] == 0
    onnx.checker.check_model(str(output), full_check=True)
    return output, verified


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_quantized_by_pt2e(qcdq, tmp_path, name, form):
    model = MODELS[name]()
    output, verified = convert(qcdq, save(model, tmp_path, form))
    assert verified["codes_compared"] > 1000
    graph = onnx.load(str(output)).graph
    initializers = {i.name for i in graph.initializer}
    layers = [n for n in graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(layers) == 3
    for node in layers:
        assert node.input[1] not in initializers, f"{node.name} has a float weight"
    assert "BatchNormalization" not in count_ops(output)


@pytest.fixture(scope="module")
def moved(qcdq, tmp_path_factory):
    """A model of few codes, one of which moves as its biases become int32; and its .onnx file."""
    path = save(quantized(x86_quantizer(), seed=4), tmp_path_factory.mktemp("moved"), "pt2")
    output = path.with_suffix(".onnx")
    assert qcdq("export", path, "-o", output).returncode == 0
    return path, output


def test_int32_biases_explain_every_difference(qcdq, moved):
    result = qcdq("verify", *moved, "--random", 8, "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["codes_differing"] == 0 and report["max_relative"] > 1e-4
    notes = [w for w in report["warnings"] if "optimisations off" in w]
    words = r"3 float biases are int32 in the file, which moves [1-9]\d* of \d+ codes; "
    assert notes and all(re.search(words, note) for note in notes), notes
    # Numbers come from the rows: what is left with float biases depends on the CPU, down to 0.
    explained = [o for o in report["outputs"] if "max_relative_with_float_biases" in o]
    assert len(explained) == len(notes)
    for row in explained:
        assert row["max_relative"] > 1e-4 >= row["max_relative_with_float_biases"], row


def wrong_scale(graph, tensors):
    """The first activation's, by one part in fifty."""
    quantize = next(n for n in graph.node if n.op_type == "QuantizeLinear")
    for name in {n.input[1] for n in graph.node if n.input[:1] == quantize.output[:1]} | {
        quantize.input[1]
    }:
        tensors[name] = tensors[name] * numpy.float32(1.02)


def bias_off_by_two_codes(graph, tensors):
    bias = next(n for n in graph.node if "bias" in n.output[0])
    tensors[bias.input[0]] = tensors[bias.input[0]] + 2


def missing_bias(graph, tensors):
    """Of all layers, in the codes as in the metadata."""
    for bias in [n for n in graph.node if "bias" in n.output[0]]:
        tensors[bias.input[0]] = tensors[bias.input[0]] * 0


@pytest.mark.parametrize(
    "change, words",
    [
        (wrong_scale, "relative difference"),
        (bias_off_by_two_codes, "steps from the float bias in the metadata, expected at most 0.5"),
        (missing_bias, "output"),
    ],
)
def test_what_int32_biases_do_not_explain_is_found(qcdq, moved, tmp_path, change, words):
    model = onnx.load(str(moved[1]))
    tensors = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    change(model.graph, tensors)
    for i in model.graph.initializer:
        i.CopyFrom(
            numpy_helper.from_array(tensors[i.name].astype(numpy_helper.to_array(i).dtype), i.name)
        )
    if change is missing_bias:
        entry = next(e for e in model.metadata_props if e.key == "qcdq.rounded_biases")
        entry.value = re.sub(r"(?<=[\t ])\S+", "0", entry.value)
    onnx.save(model, str(tmp_path / "changed.onnx"))
    result = qcdq("verify", moved[0], tmp_path / "changed.onnx", "--random", 4)
    assert result.returncode == 3, result.stdout
    assert words in result.stderr


def test_both_forms_are_the_same_file_but_for_names(qcdq, tmp_path):
    model = MODELS["x86"]()
    files = [convert(qcdq, save(model, tmp_path, form))[0].read_bytes() for form in FORMS]
    graphs = [onnx.load_from_string(content).graph for content in files]
    first, second = ([n.op_type for n in graph.node] for graph in graphs)
    assert first == second
    tensors = [sorted(t.raw_data for t in graph.initializer) for graph in graphs]
    assert tensors[0] == tensors[1]


@pytest.mark.parametrize("name", ["eager_qat", "fx_decomposed"])
def test_torch_ao_by_torch_export(qcdq, tmp_path, name):
    """Of torch.ao's own flows torch.export takes these two (test_torch_ao.py has the .pt files)."""
    from test_torch_ao import MODELS as AO_MODELS

    output, verified = convert(qcdq, save(AO_MODELS[name](), tmp_path, "pt2"))
    assert verified["codes_compared"] > 1000
    assert "BatchNormalization" not in count_ops(output)


class FourBits(nn.Module):
    def forward(self, x):
        op = torch.ops.quantized_decomposed
        q = op.quantize_per_tensor(x, 0.1, 1, -8, 7, torch.int8)
        return op.dequantize_per_tensor(q, 0.1, 1, -8, 7, torch.int8)


@pytest.mark.parametrize("form", FORMS)
def test_four_bit_range_keeps_its_clip(qcdq, tmp_path, form):
    output, _ = convert(qcdq, save(FourBits(), tmp_path, form))
    assert count_ops(output) == {"QuantizeLinear": 1, "Clip": 1, "DequantizeLinear": 1}
    x = 4 * torch.randn(SHAPE)
    (y,) = run_ort(output, x)
    assert torch.equal(y, FourBits()(x))
    assert y.min() == pytest.approx(-0.9) and y.max() == pytest.approx(0.6)
