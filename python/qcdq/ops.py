# The ops as Python functions with types and docstrings; they call torch.ops.qcdq.*, the same
# kernels that C++ calls (include/qcdq/ops.h has the whole contract, docs/semantics.md the numbers).
from __future__ import annotations

import torch
from torch import Tensor


def quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    quant_min: int,
    quant_max: int,
    *,
    dtype: torch.dtype,
    axis: int | None = None,
    block_size: int | None = None,
) -> Tensor:
    """The integer codes clamp(round_half_even(x / scale) + zero_point, quant_min, quant_max).

    scale and zero_point: one element (per tensor), x.size(axis) elements (axis), or x's shape with
    that axis divided by block_size. No gradient.

        q = qcdq.quantize(x, scale, zero_point, -128, 127, dtype=torch.int8)
    """
    return torch.ops.qcdq.quantize(
        x, scale, zero_point, quant_min, quant_max, dtype=dtype, axis=axis, block_size=block_size
    )


def dequantize(
    q: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    *,
    axis: int | None = None,
    block_size: int | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The values (q - zero_point) * scale, in dtype (scale's own where it is None).

    y = qcdq.dequantize(q, scale, zero_point)
    """
    return torch.ops.qcdq.dequantize(
        q, scale, zero_point, axis=axis, block_size=block_size, dtype=dtype
    )


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    quant_min: int,
    quant_max: int,
    *,
    axis: int | None = None,
    block_size: int | None = None,
) -> Tensor:
    """dequantize(quantize(x)) in x's type; the gradient passes straight through inside the range.

    y = qcdq.fake_quantize(x, scale, zero_point, 0, 255)
    """
    return torch.ops.qcdq.fake_quantize(
        x, scale, zero_point, quant_min, quant_max, axis=axis, block_size=block_size
    )


def fake_quantize_learned(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    quant_min: int,
    quant_max: int,
    *,
    axis: int | None = None,
    block_size: int | None = None,
    grad_factor: float = 1.0,
) -> Tensor:
    """fake_quantize with gradients for scale (LSQ, arXiv:1902.08153) and for a floating zero_point
    (LSQ+, arXiv:2004.09576), each multiplied by grad_factor.

        y = qcdq.fake_quantize_learned(x, scale, zero_point, -8, 7, grad_factor=0.01)
    """
    return torch.ops.qcdq.fake_quantize_learned(
        x,
        scale,
        zero_point,
        quant_min,
        quant_max,
        axis=axis,
        block_size=block_size,
        grad_factor=grad_factor,
    )


def choose_qparams(
    x: Tensor,
    quant_min: int,
    quant_max: int,
    *,
    symmetric: bool = False,
    axis: int | None = None,
    block_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Scale (f32) and zero point (int32) from x's smallest and largest value, as ONNX's
    DynamicQuantizeLinear for [0, 255].

        scale, zero_point = qcdq.choose_qparams(weight, -127, 127, symmetric=True, axis=0)
    """
    return torch.ops.qcdq.choose_qparams(
        x, quant_min, quant_max, symmetric=symmetric, axis=axis, block_size=block_size
    )


def fake_quantize_dynamic(
    x: Tensor,
    quant_min: int,
    quant_max: int,
    *,
    symmetric: bool = False,
    axis: int | None = None,
    block_size: int | None = None,
) -> Tensor:
    """fake_quantize with the parameters of choose_qparams, found in x at every call.

    y = qcdq.fake_quantize_dynamic(x, 0, 255)
    """
    return torch.ops.qcdq.fake_quantize_dynamic(
        x, quant_min, quant_max, symmetric=symmetric, axis=axis, block_size=block_size
    )
