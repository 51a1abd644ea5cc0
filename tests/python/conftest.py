# Fixtures of the end-to-end tests: .pt files of models.py, made once a session, and running an
# .onnx file in ONNX Runtime (ORT). The program and its libraries come from ../conftest.py.
import pathlib
import tempfile

import numpy
import onnx
import onnxruntime
import pytest
import torch

import models
import zoo

torch.set_num_threads(2)


@pytest.fixture(scope="session", autouse=True)
def _qcdq_ops(ops_library):
    torch.ops.load_library(str(ops_library))


@pytest.fixture(scope="session")
def model_file():
    """model_file(name, form, quantisers=None): the path of a scripted or traced .pt file; its
    float or fake-quantised model is the same for both forms."""
    with tempfile.TemporaryDirectory(prefix="qcdq_models_") as name:
        folder = pathlib.Path(name)

        def make(name, form, quantizers=None):
            path = folder / f"{name}_{quantizers or 'float'}_{form}.pt"
            if not path.exists():
                model = models.float_model(name)
                if quantizers:
                    model = models.quantized_model(model, quantizers)
                models.save(model, path, form, torch.randn(models.IMAGE))
            return path

        yield make


def ort_session(path, optimize=True, optimized_path=None, exact=True):
    """An ORT session on the CPU. `exact` asks for kernels that don't saturate u8 x s8 sums on CPUs
    without VNNI."""
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    if exact and optimize:
        options.add_session_config_entry("session.x64quantprecision", "1")
    if optimized_path:
        options.optimized_model_filepath = str(optimized_path)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_session(session, *inputs):
    """The outputs of a session for torch tensors, as torch tensors."""
    feeds = {i.name: x.numpy() for i, x in zip(session.get_inputs(), inputs, strict=True)}
    return [torch.from_numpy(numpy.asarray(y)) for y in session.run(None, feeds)]


def run_ort(path, *inputs, **keywords):
    """The outputs of an .onnx file for torch tensors, as torch tensors."""
    return run_session(ort_session(path, **keywords), *inputs)


def relative_difference(expected, actual):
    """max|a - b| / max|a|"""
    return ((expected - actual).abs().max() / expected.abs().max().clamp(min=1e-30)).item()


def assert_like_eager(path, model, inputs, tolerance=1e-4):
    """ORT's outputs for the .onnx file are the eager model's, in number, shapes and dtypes too."""
    copies = [value.clone() for value in inputs]  # a model may write to its input
    with torch.no_grad():
        expected = zoo.tensors(model(*inputs))
    actual = run_ort(path, *copies)
    assert [tuple(y.shape) for y in actual] == [tuple(y.shape) for y in expected]
    for one, other in zip(expected, actual, strict=True):
        assert one.dtype == other.dtype
        if one.is_floating_point():
            assert relative_difference(one, other) < tolerance
        else:
            assert torch.equal(one, other)


def input_options(folder, names, values):
    """--input options for the program: each value as a .npy file of that name in `folder`."""
    options = []
    for name, value in zip(names, values, strict=True):
        numpy.save(folder / f"{name}.npy", value.numpy())
        options += ["--input", f"{name}={folder / name}.npy"]
    return options


def count_ops(path):
    """How often each op stands in the graph of an .onnx file."""
    counts = {}
    for node in onnx.load(str(path), load_external_data=False).graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts
