# The package qcdq: what importing it gives, export_onnx and its argument names, the console script,
# the libraries' symbols; with --all, `pip install` of the wheel.
# Code under test: python/, pyproject.toml.
import os
import pathlib
import re
import subprocess
import sys

import numpy
import onnx
import pytest
import torch

import qcdq
import qcdq_program
from conftest import count_ops, relative_difference, run_ort
from qcdq import _libraries
from qcdq import nn as qnn

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = qnn.QuantLinear(8, 4, input=qcdq.int8())
        self.relu = qnn.QuantReLU(qcdq.uint4())

    def forward(self, data):
        return self.relu(self.fc(data))


@pytest.fixture
def net():
    torch.manual_seed(5)
    net = Net().train()
    net(torch.randn(16, 8))
    return net


def test_importing_gives_the_ops_and_the_version():
    assert torch.ops.qcdq.fake_quantize.default is not None
    version = re.search(r"project\(qcdq VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text())
    assert qcdq.__version__ == version[1]
    for name in qcdq.__all__:
        assert getattr(qcdq, name) is not None


def test_ops_are_the_libraries_own():
    x, scale, zero = torch.randn(6), torch.tensor(0.1), torch.tensor(0, dtype=torch.int32)
    q = qcdq.quantize(x, scale, zero, -8, 7, dtype=torch.int8)
    assert torch.equal(qcdq.dequantize(q, scale, zero), qcdq.fake_quantize(x, scale, zero, -8, 7))
    assert torch.equal(
        qcdq.fake_quantize_dynamic(x, 0, 255),
        qcdq.fake_quantize(x, *qcdq.choose_qparams(x, 0, 255), 0, 255),
    )
    assert torch.equal(
        qcdq.fake_quantize_learned(x, scale, zero, -8, 7), qcdq.fake_quantize(x, scale, zero, -8, 7)
    )


# --- export_onnx ---


def test_export_returns_the_report_and_gives_the_mode_back(net, tmp_path):
    net.relu.eval()
    report = qcdq.export_onnx(net, torch.randn(2, 8), tmp_path / "net.onnx", opset=17)
    assert net.training and net.fc.training and not net.relu.training
    assert report.path == str(tmp_path / "net.onnx")
    assert (report.opset, report.external_bytes) == (17, 0)
    assert report.file_bytes == (tmp_path / "net.onnx").stat().st_size
    assert report.nodes_by_op == count_ops(report.path)
    assert report.phases["convert"] >= 0 and report.seconds > 0
    net.eval()
    x = torch.randn(2, 8)
    with torch.no_grad():
        assert relative_difference(net(x), run_ort(report.path, x)[0]) < 1e-5


def test_argument_names_of_brevitas_and_torch_onnx(net, tmp_path):
    report = qcdq.export_onnx(
        net,
        input_t=torch.randn(2, 8),
        export_path=str(tmp_path / "net.onnx"),
        opset_version=18,
        input_names=["samples"],
        output_names=["scores"],
        dynamic_axes={"samples": {0: "batch"}},
    )
    model = onnx.load(report.path)
    assert model.opset_import[0].version == 18
    assert [v.name for v in model.graph.input] == ["samples"]
    assert [v.name for v in model.graph.output] == ["scores"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_classical_form(net, tmp_path):
    qcdq.export_onnx(
        net, torch.randn(2, 8), tmp_path / "a.onnx", weights="qdq", activation_storage="signed"
    )
    types = {t.name: t.data_type for t in onnx.load(str(tmp_path / "a.onnx")).graph.initializer}
    assert onnx.TensorProto.INT8 in types.values()
    assert count_ops(tmp_path / "a.onnx")["QuantizeLinear"] == 3


def test_integers_of_other_libraries(net, tmp_path):
    report = qcdq.export_onnx(
        net.eval(), torch.zeros(2, 8), tmp_path / "net.onnx", opset=numpy.int64(17)
    )
    assert report.opset == 17 and report.seconds > 0
    assert list(report.phases)[:2] == ["source", "settle"]  # in the order in which they ran


def test_programs_files_and_script_modules(net, tmp_path):
    net.eval()
    x = torch.randn(2, 8)
    traced = torch.jit.trace(net, x)
    torch.jit.save(traced, tmp_path / "net.pt")
    program = torch.export.export(net, (x,))
    torch.export.save(program, tmp_path / "net.pt2")
    for i, (model, args) in enumerate(
        [
            (traced, x),
            (tmp_path / "net.pt", (x,)),
            (program, None),
            (program, (x,)),
            (tmp_path / "net.pt2", None),
        ]
    ):
        path = tmp_path / f"{i}.onnx"
        qcdq.export_onnx(model, args, path)
        with torch.no_grad():
            assert relative_difference(net(x), run_ort(path, x)[0]) < 1e-5


@pytest.mark.parametrize(
    ("error", "message", "keywords"),
    [
        (TypeError, "model is a int; expected a torch.nn.Module", {"model": 3}),
        (TypeError, "path is missing", {"path": None}),
        (TypeError, "args and input_t mean the same", {"input_t": torch.zeros(2, 8)}),
        (TypeError, "opset and opset_version mean the same", {"opset": 17, "opset_version": 17}),
        (ValueError, "export_onnx: opset = 9, expected 10 to 26", {"opset": 9}),
        (ValueError, "export_onnx: opset = '17', expected an int", {"opset": "17"}),
        (ValueError, "opset = 17.5, expected an int", {"opset": 17.5}),
        (ValueError, "cast_f64 = 1, expected a bool", {"cast_f64": 1}),
        (ValueError, "weights = 8, expected one of int, qdq", {"weights": 8}),
        (ValueError, "input_names = [3], expected a list of str", {"input_names": [3]}),
        (ValueError, "axis = 'batch', expected an int", {"dynamic_axes": {"x": {"batch": "N"}}}),
        (ValueError, "weights = 'fp8', expected one of int, qdq", {"weights": "fp8"}),
        (
            ValueError,
            "weight_storage = 'int4', expected one of int8, uint8",
            {"weight_storage": "int4"},
        ),
        (ValueError, "activation_storage = 'x', expected one of auto", {"activation_storage": "x"}),
        (ValueError, "external_data = 'x', expected one of auto", {"external_data": "x"}),
        (RuntimeError, "nowhere.pt", {"model": "nowhere.pt"}),
    ],
)
def test_refusals(error, message, keywords, net, tmp_path):
    arguments = {"model": net, "args": torch.zeros(2, 8), "path": tmp_path / "net.onnx", **keywords}
    with pytest.raises(error) as caught:
        qcdq.export_onnx(**arguments)
    assert message in str(caught.value)
    assert not (tmp_path / "net.onnx").exists()


# --- libraries and program ---


def test_another_torch_is_named_in_one_sentence(tmp_path):
    (tmp_path / "qcdq_torch_version.txt").write_text("2.11\n")
    with pytest.raises(ImportError, match=r"qcdq was built against torch 2.11 but torch 2"):
        _libraries._check_torch(tmp_path)
    (tmp_path / "qcdq_torch_version.txt").write_text(torch.__version__ + "\n")
    _libraries._check_torch(tmp_path)


def test_missing_libraries_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(_libraries, "_PACKAGE", tmp_path / "a" / "b")
    monkeypatch.delenv("QCDQ_LIBRARY_DIR", raising=False)
    with pytest.raises(ImportError, match=r"libqcdq_ops.so is in none of .*set QCDQ_LIBRARY_DIR"):
        _libraries.library_folder()


def test_library_that_does_not_load_is_named(monkeypatch, tmp_path):
    (tmp_path / "libqcdq_ops.so").write_text("not a library")
    monkeypatch.setenv("QCDQ_LIBRARY_DIR", str(tmp_path))
    with pytest.raises(ImportError, match=r"doesn't load into torch .*build qcdq again"):
        _libraries.load()


def test_libraries_need_no_python():
    for name in ("libqcdq_ops.so", "libqcdq_onnx.so"):
        path = _libraries.library_folder() / name
        said = subprocess.run(["nm", "-D", str(path)], capture_output=True, text=True, check=True)
        python = [line for line in said.stdout.splitlines() if re.search(r"\b_?Py[A-Z_]", line)]
        assert not python, python[:5]
        needed = subprocess.run(
            ["objdump", "-p", str(path)], capture_output=True, text=True, check=True
        ).stdout
        assert "libpython" not in needed and "libtorch_python" not in needed
        needs_ops = re.search(r"NEEDED +libqcdq_ops\.so$", needed, re.M) is not None
        assert needs_ops == (name == "libqcdq_onnx.so")


def test_console_script_is_the_cpp_program():
    assert qcdq_program.program_path().name == "qcdq"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    said = subprocess.run(
        [sys.executable, "-m", "qcdq_program", "--version"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert said.stdout.strip() == f"qcdq {qcdq.__version__}", said.stderr


@pytest.mark.slow
def test_installed_wheel(tmp_path):
    """pip install . against the torch of this environment, then export with the installed copy."""
    target = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--quiet"]
        + ["--target", str(target), str(ROOT)],
        check=True,
    )
    wheels = list(target.glob("qcdq-*.dist-info/WHEEL"))
    assert re.search(r"Tag: py3-none-linux", wheels[0].read_text())
    code = (
        "import qcdq, torch; print(qcdq.__file__);"
        "net = qcdq.nn.QuantLinear(4, 2).eval();"
        "print(qcdq.export_onnx(net, torch.randn(1, 4), 'net.onnx').nodes_by_op)"
    )
    environment = {**os.environ, "PYTHONPATH": str(target)}
    environment.pop("QCDQ_LIBRARY_DIR", None)
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    assert str(target) in said.stdout and "DequantizeLinear" in said.stdout
    said = subprocess.run(
        [str(target / "bin" / "qcdq"), "inspect", str(tmp_path / "net.onnx")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
