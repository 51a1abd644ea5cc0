"""An installed qcdq serves programs and plugins built outside this tree: cmake --install and
find_package(qcdq)."""

import os
import pathlib
import subprocess

import numpy
import onnx
import onnxruntime
import pytest
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = (ROOT / "build" / "bin").resolve().parent


def run(*command, **kwargs):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **kwargs)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    folder = tmp_path_factory.mktemp("install")
    run("cmake", "--install", BUILD, "--prefix", folder)
    return folder


def build_outside(source, prefix, folder):
    run(
        "cmake",
        "-S",
        ROOT / source,
        "-B",
        folder,
        "-G",
        "Ninja",
        f"-DCMAKE_PREFIX_PATH={prefix}",
        "-DCMAKE_BUILD_TYPE=Release",
    )
    run("cmake", "--build", folder)
    return folder


def test_program_built_out_of_tree_exports_and_verifies(prefix, tmp_path):
    folder = build_outside("examples/cpp_module", prefix, tmp_path / "build")
    said = run(
        folder / "cpp_module",
        cwd=tmp_path,
        env={**os.environ, "QCDQ_ORT": os.path.dirname(onnxruntime.__file__) + "/capi"},
    )
    assert "differing: 0," in said
    onnx.checker.check_model(str(tmp_path / "net.onnx"), full_check=True)


def test_plugin_brings_its_op_and_its_symbolic_function(prefix, tmp_path):
    plugin = build_outside("examples/custom_op", prefix, tmp_path / "build") / "libcustom_op.so"
    model = tmp_path / "m.pt"
    # Another process, so that this one's registry stays as it is for other tests.
    run(
        ROOT / ".venv/bin/python",
        "-c",
        f"""
import torch
torch.ops.load_library({str(plugin)!r})
class M(torch.nn.Module):
    def forward(self, x):
        return torch.ops.mylib.scaled_tanh(x, 1.5)
torch.jit.trace(M(), torch.zeros(2, 3)).save({str(model)!r})
""",
    )
    qcdq = prefix / "bin" / "qcdq"
    out = tmp_path / "m.onnx"
    refused = subprocess.run(
        [qcdq, "export", model, "-o", out, "--input", "x=f32[2,3]"], capture_output=True, text=True
    )
    assert refused.returncode == 1 and "mylib::scaled_tanh" in refused.stderr and not out.exists()
    run(qcdq, "export", model, "-o", out, "--input", "x=f32[2,3]", "--plugin", plugin)
    (row,) = [
        line.split()
        for line in run(qcdq, "ops", "--plugin", plugin).splitlines()
        if "mylib::scaled_tanh" in line
    ]
    assert row[2] == "libcustom_op.so"
    x = numpy.random.default_rng(0).standard_normal((2, 3)).astype(numpy.float32)
    y = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )[0]
    numpy.testing.assert_allclose(y, 1.5 * torch.tanh(torch.from_numpy(x)).numpy(), rtol=1e-5)


def dynamic_section(path):
    lines = run("objdump", "-p", path).splitlines()
    entries = [line.split() for line in lines if line.startswith("  ") and len(line.split()) == 2]
    return [value for key, value in entries if key in ("NEEDED", "RUNPATH", "RPATH")]


def test_the_exporter_brings_the_ops(prefix, tmp_path):
    """libqcdq_onnx.so needs libqcdq_ops.so, which it finds beside itself, so that a program that
    links qcdq::onnx alone exports a model with qcdq's ops."""
    for folder in (BUILD / "lib", prefix / "lib"):
        assert "libqcdq_ops.so" in dynamic_section(folder / "libqcdq_onnx.so")
    paths = dynamic_section(prefix / "lib" / "libqcdq_onnx.so")
    assert any("$ORIGIN" in path.split(":") for path in paths), paths

    model, out = tmp_path / "m.pt", tmp_path / "m.onnx"
    run(
        ROOT / ".venv/bin/python",
        "-c",
        f"""
import torch
torch.ops.load_library({str(prefix / "lib" / "libqcdq_ops.so")!r})
class M(torch.nn.Module):
    def forward(self, x):
        return torch.ops.qcdq.fake_quantize(x, torch.tensor(0.5), torch.tensor(0), -8, 7)
torch.jit.trace(M(), torch.zeros(2, 3)).save({str(model)!r})
""",
    )
    folder = build_outside("tests/e2e/onnx_alone", prefix, tmp_path / "build")
    run(folder / "onnx_alone", model, out)
    ops = [node.op_type for node in onnx.load(str(out)).graph.node]
    assert ops == ["QuantizeLinear", "Clip", "DequantizeLinear"]


def test_missing_plugin_is_one_clear_line(prefix, tmp_path):
    done = subprocess.run(
        [prefix / "bin" / "qcdq", "export", "m.pt", "-o", "o.onnx", "--plugin", tmp_path / "no.so"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "no.so" in done.stderr and len(done.stderr.strip().splitlines()) == 1
