# What the tests of the program share: what a refusal looks like, and small TorchScript models.
import warnings

import pytest
import torch


@pytest.fixture
def refused(qcdq, tmp_path):
    """Runs the program, expects one line on stderr with the exit code, and returns the line."""

    def run(*arguments, code):
        before = sorted(tmp_path.iterdir())
        result = qcdq(*arguments, cwd=tmp_path)
        assert result.returncode == code, result
        assert result.stdout == "", result
        assert result.stderr.endswith("\n") and result.stderr.count("\n") == 1, result
        assert sorted(tmp_path.iterdir()) == before, "a refusal left a file behind"
        return result.stderr.strip()

    return run


class Net(torch.nn.Module):
    """A small float net: (N, 4) to (N, 3)."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.fc1 = torch.nn.Linear(4, 8)
        self.fc2 = torch.nn.Linear(8, 3)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


class Quantized(torch.nn.Module):
    """Net with fake-quantised weights and activations, by aten's ops."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.fc = torch.nn.Linear(4, 3)

    def forward(self, x):
        x = torch.fake_quantize_per_tensor_affine(x, 0.0625, 128, 0, 255)
        w = torch.fake_quantize_per_tensor_affine(self.fc.weight, 0.0078125, 0, -127, 127)
        y = torch.nn.functional.linear(x, w, self.fc.bias)
        return torch.fake_quantize_per_tensor_affine(y, 0.03125, 128, 0, 255)


class Difference(torch.nn.Module):
    """Two inputs whose order matters, and one with a default."""

    def forward(self, a, b, bias: float = 0.5):
        return a - 2 * b + bias


class Constant(torch.nn.Module):
    """No inputs."""

    def forward(self):
        return torch.ones(2, 3)


class Embedding(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.table = torch.nn.Embedding(50, 4)

    def forward(self, ids):
        return self.table(ids)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Paths of saved models by name."""
    folder = tmp_path_factory.mktemp("models")
    paths = {}

    def save(name, module):
        paths[name] = folder / f"{name}.pt"
        torch.jit.save(module, str(paths[name]))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save("net", torch.jit.script(Net(0).eval()))
        save("other", torch.jit.script(Net(1).eval()))
        save("traced", torch.jit.trace(Net(0).eval(), torch.randn(2, 4)))
        save("quantised", torch.jit.script(Quantized().eval()))
        save("difference", torch.jit.script(Difference().eval()))
        save("constant", torch.jit.script(Constant().eval()))
        save("embedding", torch.jit.script(Embedding().eval()))
    return paths
