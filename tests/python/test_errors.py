# What `qcdq export` says when it can't: one line on stderr that says what and why, the documented
# exit code (1 refused or failed, 2 bad usage), and no file left or changed.
import os
import subprocess

import pytest
import torch
from torch import nn

import models
from models import ParameterWeight, QcdqActivation

SPEC = ("--input", "x=f32[2,8]")


class UnsupportedOps(nn.Module):
    def forward(self, x):
        return torch.fft.fft(x).abs() + torch.special.i1e(x)


class TwoInputs(nn.Module):
    def forward(self, x, other):
        return x + other


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    path = tmp_path_factory.mktemp("errors") / "linear.pt"
    models.save(ParameterWeight(), path, "script", torch.randn(2, 8))
    return path


@pytest.fixture
def refused(qcdq, tmp_path):
    """refused(code, *arguments, words=...): runs export on an output that exists already and
    checks all that a refusal promises."""

    def check(code, model, *arguments, words=(), lines=1, folder=tmp_path, program=qcdq):
        output = folder / "model.onnx"
        writable = os.access(folder, os.W_OK) and folder == tmp_path
        if writable:
            output.write_bytes(b"before")
        before = sorted(p.name for p in folder.iterdir())
        result = program("export", model, "-o", output, *arguments)
        assert result.returncode == code, (result.returncode, result.stderr)
        assert len(result.stderr.splitlines()) == lines, result.stderr
        assert result.stderr.startswith("qcdq"), result.stderr
        assert "Exception raised from" not in result.stderr  # c10's backtrace
        for word in words:
            assert word in result.stderr, result.stderr
        assert sorted(p.name for p in folder.iterdir()) == before
        if writable:
            assert output.read_bytes() == b"before"
        return result

    return check


@pytest.mark.parametrize("content", ["text", "empty", "truncated"])
def test_broken_file(refused, linear, tmp_path, content):
    broken = tmp_path / "broken.pt"
    whole = linear.read_bytes()
    broken.write_bytes({"text": b"not a model", "empty": b"", "truncated": whole[:1000]}[content])
    refused(1, broken, *SPEC, words=["broken.pt"])


def test_missing_file(refused, tmp_path):
    refused(1, tmp_path / "absent.pt", *SPEC, words=["absent.pt", "No such file"])


def test_folder_as_model(refused, tmp_path):
    folder = tmp_path / "folder.pt"
    folder.mkdir()
    refused(1, folder, *SPEC, words=["folder.pt"])


@pytest.mark.parametrize("what", ["module", "state_dict"])
def test_pickle(refused, tmp_path, what):
    path = tmp_path / "pickled.pt"
    model = nn.Linear(8, 6)
    torch.save(model if what == "module" else model.state_dict(), path)
    refused(1, path, *SPEC, words=["pickled.pt", "not TorchScript", "torch.jit.save"])


def test_unknown_ops_are_all_named(refused, tmp_path):
    path = tmp_path / "ops.pt"
    models.save(UnsupportedOps(), path, "trace", torch.randn(2, 8))
    refused(1, path, *SPEC, lines=3, words=["2 things", "aten::fft_fft", "aten::special_i1e"])


@pytest.mark.parametrize(
    "spec",
    ["x", "x=", "x=f32", "x=f33[2,8]", "x=f32[2,8", "x=f32[2,-8]", "x=f32[2,a]", "=f32[2,8]"],
)
def test_bad_input_spec(refused, linear, spec):
    refused(2, linear, "--input", spec, words=["--input"])


def test_input_of_another_name(refused, linear):
    refused(2, linear, "--input", "image=f32[2,8]", words=["image", "x"])


def test_missing_input(refused, tmp_path):
    path = tmp_path / "two.pt"
    models.save(TwoInputs(), path, "script", None)
    refused(2, path, *SPEC, words=["other"])


def test_wrong_shape(refused, linear):
    refused(1, linear, "--input", "x=f32[2,9]", words=["9"])


@pytest.mark.parametrize("opset", ["9", "27", "x"])
def test_opset_outside_the_range(refused, linear, opset):
    refused(2, linear, *SPEC, "--opset", opset, words=["opset"])


def test_per_channel_below_opset_13(refused, linear):
    refused(1, linear, *SPEC, "--opset", "12", words=["13", "12", "per-channel"])


@pytest.mark.parametrize("dynamic", ["x:0", "x=N", "x:9=N", "y:0=N", "x:a=N"])
def test_bad_dynamic(refused, linear, dynamic):
    refused(2, linear, *SPEC, "--dynamic", dynamic, words=["--dynamic"])


@pytest.mark.parametrize("form", ["qop", "qonnx"])
def test_format_not_built_yet(refused, linear, form):
    refused(1, linear, *SPEC, "--format", form, words=[form])


def test_unknown_format(refused, linear):
    refused(2, linear, *SPEC, "--format", "tflite", words=["tflite"])


def test_float64_activation(refused, tmp_path):
    path = tmp_path / "double.pt"
    quantizer = QcdqActivation(0.1, 0, -128, 127)
    models.save(quantizer, path, "script", None)
    refused(1, path, "--input", "x=f64[4]", words=["--cast-f64"])


def test_missing_plugin(refused, linear, tmp_path):
    refused(1, linear, *SPEC, "--plugin", tmp_path / "libabsent.so", words=["libabsent.so"])


def test_missing_output_folder(qcdq, linear, tmp_path):
    output = tmp_path / "absent" / "model.onnx"
    result = qcdq("export", linear, "-o", output, *SPEC)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert str(output.parent) in result.stderr
    assert not output.parent.exists()


def test_without_ort_the_file_is_kept(qcdq, linear, tmp_path):
    output = tmp_path / "model.onnx"
    result = qcdq("export", linear, "-o", output, *SPEC, "--verify", "--ort", tmp_path / "none.so")
    assert result.returncode == 1
    assert "none.so" in result.stderr
    assert output.exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("may not mount a tmpfs (needs root)")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_full_disk(refused, model_file, small_disk):
    model = model_file("squeezenet1_1", "script")  # 5 MB
    refused(
        1,
        model,
        "--input",
        "x=f32[1,3,224,224]",
        folder=small_disk,
        words=["model.onnx", "No space left on device"],
    )


def test_full_disk_external_data(refused, model_file, small_disk):
    model = model_file("squeezenet1_1", "script")
    refused(
        1,
        model,
        "--input",
        "x=f32[1,3,224,224]",
        "--external-data",
        "always",
        folder=small_disk,
        words=["No space left on device"],
    )


def test_full_disk_keeps_the_old_file(qcdq, model_file, small_disk):
    output = small_disk / "model.onnx"
    output.write_bytes(b"before")
    result = qcdq(
        "export",
        model_file("squeezenet1_1", "script"),
        "-o",
        output,
        "--input",
        "x=f32[1,3,224,224]",
    )
    assert result.returncode == 1
    assert output.read_bytes() == b"before"
    assert [p.name for p in small_disk.iterdir()] == ["model.onnx"]


def test_read_only_folder(refused, linear, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    refused(1, linear, *SPEC, folder=small_disk, words=["Read-only file system"])


class Strided(nn.Module):
    def forward(self, x):
        return x.t().as_strided((8, 2), (2, 1)) + 1


class StridedCopy(nn.Module):
    """The identity if the copy kept the strides of x."""

    def forward(self, x):
        copy = torch.ops.aten._to_copy(x.t(), memory_format=torch.contiguous_format)
        return copy.as_strided((8, 2), (1, 8)) + 1


@pytest.mark.parametrize("model, form", [(Strided, "pt"), (Strided, "pt2"), (StridedCopy, "pt2")])
def test_strides_that_move_elements(refused, tmp_path, model, form):
    path = tmp_path / f"strided.{form}"
    x = torch.randn(2, 8)
    if form == "pt2":
        torch.export.save(torch.export.export(model(), (x,)), str(path))
    else:
        torch.jit.trace(model(), x).save(str(path))
    strides = "[2, 1]" if model is Strided else "[1, 8]"
    refused(
        1,
        path,
        *(SPEC if form == "pt" else ()),
        words=["aten::as_strided", f"'stride' = {strides} with size [8, 2] and storage_offset"],
    )
