# A Python number beside a tensor: the file gives torch's types and values, whether the model was
# scripted, traced or exported, and integers are exact in all of int64.
import pytest
import torch
from torch import nn

import models
from conftest import run_ort

BEYOND = 2**53 + 1  # the least integer that no double holds
LARGEST = torch.iinfo(torch.int64).max
LEAST = torch.iinfo(torch.int64).min


class Body(nn.Module):
    def forward(self, n):
        raise NotImplementedError


class Add(Body):
    def forward(self, n):
        return n + 1.91


class AddReversed(Body):
    def forward(self, n):
        return 1.91 + n


class Subtract(Body):
    def forward(self, n):
        return n - 0.3


class SubtractReversed(Body):
    def forward(self, n):
        return 2.5 - n


class Multiply(Body):
    def forward(self, n):
        return n * -2.16


class Divide(Body):
    def forward(self, n):
        return n / 3


class DivideByFloat(Body):
    def forward(self, n):
        return n / 2.5


class DivideReversed(Body):
    def forward(self, n):
        return 1.5 / (n.abs() + 1)


class Power(Body):
    def forward(self, n):
        return (n + 4) ** 0.5


class Where(Body):
    def forward(self, n):
        return torch.where(n > 1, n, 0.5)


class Compare(Body):
    def forward(self, n):
        return n < 1.5


class Clamp(Body):
    def forward(self, n):
        return n.clamp(-0.5, 2.5)


class BoolPlusInt(Body):
    def forward(self, n):
        return (n > 0) + 1


class Half(Body):
    def forward(self, n):
        return n.to(torch.float16) * 0.5 + 0.25


class BySize(Body):
    def forward(self, n):
        return n * (n.size(1) * 0.5)


class Literal(Body):
    def forward(self, n):
        return n + torch.tensor(1.91)


class DoubleLiteral(Body):
    def forward(self, n):
        return n + torch.tensor(1.91, dtype=torch.float64)


class Relu(Body):
    def forward(self, n):
        return torch.relu(n)


class ProductOfIntegers(Body):
    def forward(self, n):
        return torch.addmm(n[:, :2], n, n.t(), beta=2)


BODIES = [
    Add,
    AddReversed,
    Subtract,
    SubtractReversed,
    Multiply,
    Divide,
    DivideByFloat,
    DivideReversed,
    Power,
    Where,
    Compare,
    Clamp,
    BoolPlusInt,
    Half,
    BySize,
    Literal,
    DoubleLiteral,
    Relu,
    ProductOfIntegers,
]


class ClampToLargest(Body):
    def forward(self, n):
        return n.clamp(max=9223372036854775807)


class ClampToLeast(Body):
    def forward(self, n):
        return n.clamp(min=-9223372036854775807 - 1)


class FillMasked(Body):
    def forward(self, n):
        return n.masked_fill(n > 0, 9007199254740993)


class Full(Body):
    def forward(self, n):
        return torch.full_like(n, 9007199254740993)


class NewFull(Body):
    def forward(self, n):
        return n.new_full([2], 9223372036854775807)


class GreaterThan(Body):
    def forward(self, n):
        return n > 9007199254740993


class EqualTo(Body):
    def forward(self, n):
        return n == 9007199254740993


class AddLarge(Body):
    def forward(self, n):
        return torch.add(n, 9007199254740993, alpha=3) - 9007199254740993


class Modulo(Body):
    def forward(self, n):
        return n % 9007199254740993


class WhereLarge(Body):
    def forward(self, n):
        return torch.where(n > 0, 9007199254740993, n)


class PadLarge(Body):
    def forward(self, n):
        return torch.constant_pad_nd(n, [1, 1], 9007199254740993)


class SetItem(Body):
    def forward(self, n):
        m = n.clone()
        m[0, 0] = 9007199254740993
        m[m < 0] = 9223372036854775807
        return m


LARGE = [
    ClampToLargest,
    ClampToLeast,
    FillMasked,
    Full,
    NewFull,
    GreaterThan,
    EqualTo,
    AddLarge,
    Modulo,
    WhereLarge,
    PadLarge,
    SetItem,
]


def assert_like_torch(qcdq, folder, body, form, n, spec):
    """Exports the body and compares the file with what torch gives for it."""
    model = body().eval()
    path = folder / ("model.pt2" if form == "export" else "model.pt")
    if form == "export":
        torch.export.save(torch.export.export(model, (n,)), path)
    else:
        models.save(model, path, form, n)
    output = folder / "model.onnx"
    result = qcdq("export", path, "-o", output, "--input", spec, "--verify")
    assert result.returncode == 0, result.stderr
    expected = model(n)
    (actual,) = run_ort(output, n)
    assert actual.dtype == expected.dtype
    if expected.is_floating_point():
        assert torch.allclose(actual, expected, rtol=1e-5, atol=1e-6)
    else:
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("form", ["script", "trace", "export"])
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_numbers_take_the_tensors_type(qcdq, tmp_path, body, form):
    n = torch.tensor([[-3, 0, 1], [2, 4, -1]])
    assert_like_torch(qcdq, tmp_path, body, form, n, "n=i64[2,3]")


@pytest.mark.parametrize("form", ["script", "trace", "export"])
@pytest.mark.parametrize("body", LARGE, ids=lambda body: body.__name__)
def test_integers_are_exact(qcdq, tmp_path, body, form):
    n = torch.tensor([[BEYOND, BEYOND - 1, LARGEST], [LEAST, -BEYOND, 7]])
    assert_like_torch(qcdq, tmp_path, body, form, n, "n=i64[2,3]")
