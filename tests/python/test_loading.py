# The ops library in Python: by ctypes (dlopen), by torch.ops.load_library and by LD_PRELOAD; what
# torch and qcdq say about a .pt file whose ops are not there. Each case is a process of its own,
# because a library stays loaded. (qcdq itself shows linking.)
import os
import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn

import models

USE = """
y = torch.ops.qcdq.fake_quantize(torch.tensor([0.24, 9.0]), torch.tensor(0.1),
                                 torch.tensor(0), -8, 7)
assert torch.equal(y, torch.tensor([2.0, 7.0]) * 0.1), y
m = torch.jit.load(sys.argv[1])
assert m(torch.zeros(2, 8)).shape == (2, 6)
"""
LOADS = {
    "ctypes": "import ctypes, sys, torch; ctypes.CDLL({library!r})",
    "load_library": "import sys, torch; torch.ops.load_library({library!r})",
}


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    path = tmp_path_factory.mktemp("loading") / "linear.pt"
    models.save(models.ParameterWeight(), path, "script", torch.randn(2, 8))
    return path


def python(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("way", LOADS)
def test_load(ops_library, linear, way):
    result = python(LOADS[way].format(library=str(ops_library)) + "\n" + USE, linear)
    assert result.returncode == 0, result.stderr


def test_preload(ops_library, linear):
    result = python("import sys, torch\n" + USE, linear, LD_PRELOAD=str(ops_library))
    assert result.returncode == 0, result.stderr


def test_twice(ops_library, linear):
    load = LOADS["load_library"].format(library=str(ops_library))
    result = python(
        f"{load}\n{load}\n{LOADS['ctypes'].format(library=str(ops_library))}\n{USE}", linear
    )
    assert result.returncode == 0, result.stderr


# Calls the kernel of an op for CUDA tensors with CPU tensors: no GPU is needed to get as far as its
# checks.
CALL_CUDA = """
keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
try:
    torch.ops.qcdq.fake_quantize.default.redispatch(
        keys, torch.zeros(2, dtype=torch.long), torch.tensor(0.1), torch.tensor(0), -8, 7)
except (NotImplementedError, ValueError) as error:
    print(f"{type(error).__name__}: {error}")
"""


def test_cuda_library_is_missing(ops_library, tmp_path):
    """A CUDA tensor without libqcdq_cuda.so beside the ops: the error says what to do."""
    copy = tmp_path / "libqcdq_ops.so"
    shutil.copy(ops_library, copy)
    result = python(LOADS["load_library"].format(library=str(copy)) + CALL_CUDA)
    assert result.returncode == 0, result.stderr
    assert (
        "NotImplementedError: qcdq::fake_quantize: an argument is on a CUDA device" in result.stdout
    )
    assert str(tmp_path / "libqcdq_cuda.so") in result.stdout
    assert "./dev build --cuda" in result.stdout


@pytest.mark.parametrize("preload", [False, True])
def test_cuda_library_is_loaded_with_the_ops(ops_library, preload):
    """Where it was built, its kernels stand behind every op: at once where torch has CUDA, else
    (the ops were there before torch) at the first call. No GPU is needed for that."""
    if not (ops_library.parent / "libqcdq_cuda.so").exists():
        pytest.skip("libqcdq_cuda.so is not built: ./dev build --cuda")
    if torch.version.cuda is None:
        pytest.skip("this torch is built without CUDA")
    load = LOADS["load_library"].format(library=str(ops_library))
    environment = {"LD_PRELOAD": str(ops_library)} if preload else {}
    code = load + CALL_CUDA * 2 + "print(torch._C._dispatch_dump('qcdq::fake_quantize'))"
    result = python(code, **environment)
    assert result.returncode == 0, result.stderr
    assert "cuda_ops.cpp" in result.stdout
    assert "load_cuda.cpp" not in result.stdout.rsplit("ValueError", 1)[1]
    # The arguments are checked by the CUDA kernel itself.
    assert "ValueError: qcdq::fake_quantize: x is Long" in result.stdout
    assert "Overriding" not in result.stderr


def test_missing_library_in_python(linear):
    result = python("import sys, torch; torch.jit.load(sys.argv[1])", linear)
    assert result.returncode != 0
    assert "qcdq::fake_quantize" in result.stderr


class CustomOp(nn.Module):
    def forward(self, x):
        return torch.ops.qcdq_test.shift(x)


def test_missing_library_in_qcdq(qcdq, tmp_path):
    """A .pt with an op of a library that qcdq has not loaded: the op is named, and --plugin."""
    library = torch.library.Library("qcdq_test", "DEF")
    library.define("shift(Tensor x) -> Tensor")
    library.impl("shift", lambda x: x + 1, "CompositeExplicitAutograd")
    path = tmp_path / "custom.pt"
    torch.jit.save(torch.jit.script(CustomOp()), str(path))
    output = tmp_path / "model.onnx"
    result = qcdq("export", path, "-o", output, "--input", "x=f32[2]")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "qcdq_test::shift" in result.stderr
    assert "--plugin" in result.stderr
    assert not output.exists()
