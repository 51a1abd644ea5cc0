# torch.onnx with qcdq's hooks (dynamo=False and dynamo=True): old opsets, node for node, single
# ops, refusals; ops under torch.export, compile, make_fx and FX. test_pairs.py has whole models.
# Code under test: python/qcdq/onnx_hooks.py, symbolic/quantizer/nodes.cpp.
import logging
import os
import pathlib
import subprocess
import sys

import onnx
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import qcdq
from conftest import relative_difference, run_ort
from pairs import all_codes, check, make_net, torch_onnx

pytest.importorskip("onnxscript")
ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("opset", [10, 11, 12])
def test_old_opsets_clip_in_float(opset, tmp_path):
    net, x = make_net("mlp-w4-a3")
    path = torch_onnx(net, x, tmp_path / "net.onnx", False, opset)
    check(path, net, x)
    assert all_codes(path, x) == all_codes(torch_onnx(net, x, tmp_path / "b.onnx", False, 21), x)


@pytest.mark.parametrize("dynamo", [False, True])
def test_activations_are_ours_node_for_node(dynamo, tmp_path):
    net, x = make_net("digits-w4a4")
    path = torch_onnx(net, x, tmp_path / "net.onnx", dynamo, 21)
    graph = onnx.load(str(path)).graph
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
        if node.op_type == "Identity":  # dynamo=False merges equal initializers this way
            constants[node.output[0]] = constants[node.input[0]]
    clips = {n.input[0]: n for n in graph.node if n.op_type == "Clip"}
    activation = [
        n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in constants
    ]
    assert len(activation) == 2
    assert [str(constants[n.input[2]].dtype) for n in activation] == ["uint8", "uint8"]
    assert [int(constants[n.input[2]]) for n in activation] == [128, 0]
    assert [n.output[0] in clips for n in activation] == [False, True]
    clip = clips[activation[1].output[0]]
    assert [int(constants[name]) for name in clip.input[1:]] == [0, 15]
    weights = [n for n in graph.node if n.op_type == "QuantizeLinear" and n not in activation]
    assert [str(constants[n.input[2]].dtype) for n in weights] == ["int8", "int8"]
    codes = {n.output[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    assert len([n for n in graph.node if n.op_type == "Clip" and n.input[0] in codes]) == 3


class Ops(torch.nn.Module):
    """The ops by themselves."""

    def __init__(self, ranges=(-8, 7), dtype=torch.int8):
        super().__init__()
        self.register_buffer("scale", torch.tensor([0.25]))
        self.register_buffer("zero_point", torch.tensor([1], dtype=torch.int32))
        self.ranges, self.dtype = ranges, dtype

    def forward(self, x):
        q = qcdq.quantize(x, self.scale, self.zero_point, *self.ranges, dtype=self.dtype)
        y = qcdq.dequantize(q, self.scale, self.zero_point)
        z = qcdq.fake_quantize_dynamic(x, 0, 255)
        learned = qcdq.fake_quantize_learned(
            x, self.scale, self.zero_point.float() + 0.25, *self.ranges
        )
        return q.to(torch.int32), y, z, learned


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize(
    ("ranges", "dtype", "opset"),
    [
        ((-8, 7), torch.int8, 18),
        ((-8, 7), torch.int8, 21),
        ((0, 200), torch.uint8, 21),
        ((-512, 511), torch.int16, 21),
        ((0, 65535), torch.uint16, 21),
        ((-100, 100), torch.int32, 21),
    ],
)
def test_single_ops(dynamo, ranges, dtype, opset, tmp_path):
    model = Ops(ranges, dtype).eval()
    x = torch.linspace(-300, 300, 240).view(4, 60)
    if dtype == torch.uint16 and not dynamo:
        with pytest.raises(
            ValueError, match=r"qcdq::quantize: its codes are uint16, which torch\.onnx"
        ):
            torch_onnx(model, x, tmp_path / "ops.onnx", dynamo, opset)
        return
    path = torch_onnx(model, x, tmp_path / "ops.onnx", dynamo, opset)
    onnx.checker.check_model(str(path), full_check=True)
    for expected, actual in zip(model(x), run_ort(path, x, optimize=False), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dynamo", [False, True])
def test_half_precision_goes_through_float32(dynamo, tmp_path):
    class Half(torch.nn.Module):
        def forward(self, x):
            scale, zero = torch.tensor(0.25), torch.tensor(0, dtype=torch.int32)
            return qcdq.fake_quantize(x, scale, zero, -8, 7)

    x = torch.randn(3, 4).half()
    path = torch_onnx(Half(), x, tmp_path / "half.onnx", dynamo, 21)
    assert torch.equal(run_ort(path, x)[0], Half()(x))


@pytest.mark.parametrize("dynamo", [False, True])
def test_dynamic_batch(dynamo, tmp_path):
    net, x = make_net("digits-w8c-a8")
    keywords = (
        {"dynamic_shapes": ({0: torch.export.Dim("n", min=1, max=64)},)}
        if dynamo
        else {"dynamic_axes": {"x": {0: "n"}}, "input_names": ["x"]}
    )
    path = torch_onnx(net, x, tmp_path / "net.onnx", dynamo, 21, **keywords)
    for size in (1, 5):
        other = torch.randn(size, 1, 8, 8)
        with torch.no_grad():
            assert relative_difference(net(other), run_ort(path, other)[0]) < 1e-5


def test_scripted_graph_through_the_hooks(tmp_path):
    net, x = make_net("digits-w4a4")
    scripted = torch.jit.script(torch.jit.trace(net, x))
    check(torch_onnx(scripted, x, tmp_path / "net.onnx", False, 17), net, x)


# --- refusals ---


UNREGISTERED = """
import sys, torch, qcdq
x = torch.randn(2)
class Net(torch.nn.Module):
    def forward(self, x):
        return qcdq.fake_quantize(x, torch.tensor(0.5), torch.tensor(0, dtype=torch.int32), 0, 15)
try:
    torch.onnx.export(Net().eval(), (x,), "a.onnx", dynamo=sys.argv[1] == "True")
except Exception as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("dynamo", "message"),
    [
        (False, "unrecognized namespace qcdq::fake_quantize"),
        (True, "No ONNX function found for <OpOverload(op='qcdq.fake_quantize'"),
    ],
)
def test_without_registering_it_is_torch_onnx_that_refuses(dynamo, message, tmp_path):
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", UNREGISTERED, str(dynamo)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
    )
    assert message in said.stdout, said.stdout + said.stderr


def test_dynamo_below_opset_18_is_refused_by_name():
    with pytest.raises(ValueError, match="opset_version = 17; expected 18 or newer"):
        qcdq.translation_table(17)


def test_opset_9_is_refused_by_name(tmp_path):
    net, x = make_net("mlp-w8a8")
    qcdq.register_onnx()
    with pytest.raises(ValueError, match=r"needs opset 10 .opset_version = 9.; expected"):
        torch.onnx.export(net, (x,), str(tmp_path / "a.onnx"), dynamo=False, opset_version=9)


def test_per_channel_below_opset_13_is_refused_by_name(tmp_path):
    net, x = make_net("digits-w8c-a8")
    qcdq.register_onnx()
    with pytest.raises(ValueError, match="argument 'axis' = 0: per-channel scales need opset 13"):
        torch.onnx.export(net, (x,), str(tmp_path / "a.onnx"), dynamo=False, opset_version=12)


def messages(error):
    """The texts of an error and of those behind it: torch.onnx wraps them."""
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return texts


@pytest.mark.parametrize("dynamo", [False, True])
def test_dynamic_ranges_that_onnx_lacks_are_refused_by_name(dynamo, tmp_path):
    class Dynamic(torch.nn.Module):
        def forward(self, x):
            return qcdq.fake_quantize_dynamic(x, -128, 127)

    logging.disable(logging.CRITICAL)
    try:
        with pytest.raises(Exception) as caught:
            torch_onnx(Dynamic(), torch.randn(3), tmp_path / "a.onnx", dynamo, 21)
    finally:
        logging.disable(logging.NOTSET)
    expected = "ONNX quantises dynamically to [0, 255] only"
    assert any(expected in text for text in messages(caught.value))


@pytest.fixture
def other_overload():
    library = torch.library.Library("qcdq", "FRAGMENT")
    library.define("fake_quantize.other(Tensor x) -> Tensor")
    library.impl("fake_quantize.other", lambda x: x + 0, "CompositeExplicitAutograd")
    yield torch.ops.qcdq.fake_quantize.other
    library._destroy()


@pytest.mark.parametrize(
    ("dynamo", "message"),
    [
        (False, "qcdq::fake_quantize: 1 arguments; expected the 7 of qcdq::fake_quantize"),
        (True, "No ONNX function found for <OpOverload(op='qcdq.fake_quantize', overload='other')"),
    ],
)
def test_unknown_overloads_are_refused_by_name(dynamo, message, other_overload, tmp_path):
    class Other(torch.nn.Module):
        def forward(self, x):
            return other_overload(x)

    with pytest.raises(Exception) as caught:
        torch_onnx(Other().eval(), torch.randn(3), tmp_path / "a.onnx", dynamo, 21)
    assert any(message in text for text in messages(caught.value)), messages(caught.value)
    assert not (tmp_path / "a.onnx").exists()


# --- FX ---


def targets(graph_module):
    return [str(n.target) for n in graph_module.graph.nodes if "qcdq" in str(n.target)]


def test_torch_export_and_decompositions_keep_the_ops():
    net, x = make_net("digits-w4c-a4")
    program = torch.export.export(net, (x,))
    expected = ["qcdq.fake_quantize.default"] * 6
    assert targets(program.graph_module) == expected
    decomposed = program.run_decompositions()
    assert targets(decomposed.graph_module) == expected
    assert torch.equal(decomposed.module()(x), net(x))


def test_torch_export_keeps_symbolic_shapes():
    net, x = make_net("digits-w4c-a4")
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: batch},))
    other = torch.randn(7, 1, 8, 8)
    torch.testing.assert_close(program.module()(other), net(other))
    node = next(n for n in program.graph.nodes if "qcdq" in str(n.target))
    assert isinstance(node.meta["val"].shape[0], torch.SymInt)


def test_make_fx_keeps_the_ops():
    net, x = make_net("mlp-w8a8")
    for mode in ("real", "symbolic"):
        graph = make_fx(net, tracing_mode=mode, _allow_non_fake_inputs=True)(x)
        assert targets(graph) == ["qcdq.fake_quantize.default"] * 3
        assert torch.equal(graph(x), net(x))


def test_torch_compile_keeps_the_ops():
    net, x = make_net("mlp-w8a8")
    graphs = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(net, backend=backend, fullgraph=True)
    assert torch.equal(compiled(x), net(x))
    assert len(graphs) == 1
    assert len(targets(graphs[0])) == 3


def test_fx_graph_modules_export_by_every_path(tmp_path):
    net, x = make_net("digits-w4a4")
    traced = torch.fx.symbolic_trace(net)
    assert len(targets(traced)) == 6
    exported = torch.export.export(net, (x,)).module()
    for name, graph in (("fx", traced), ("export", exported)):
        ours = tmp_path / f"{name}_ours.onnx"
        qcdq.export_onnx(graph, x, ours)
        check(ours, net, x)
        check(torch_onnx(graph, x, tmp_path / f"{name}_dynamo.onnx", True, 18), net, x)
    # torch.onnx calls eval(), which a module of torch.export refuses.
    check(torch_onnx(traced, x, tmp_path / "fx_script.onnx", False, 18), net, x)
