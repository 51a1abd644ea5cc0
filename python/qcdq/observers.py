# Statistics that scales are started from, as in include/qcdq/observers.h: percentile, minmax,
# running means, and the step from a range to scale and zero point. quantizer.py uses them.
from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from qcdq.spec import Granularity, QuantSpec, Scaling

_SCALE_FLOOR = 1e-10  # a tensor of zeros has to have a scale too


def keep_dtype(convert: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`convert` of nn.Module._apply, without what it does to element types: scales stay f32."""

    def converted(tensor: Tensor) -> Tensor:
        result = convert(tensor)
        return result if result.dtype == tensor.dtype else tensor.to(result.device)

    return converted


def _as_statistics(x: Tensor, name: str) -> Tensor:
    if not x.is_floating_point():
        raise ValueError(f"{name}: x has type {x.dtype}; expected a floating-point tensor")
    if x.numel() == 0:
        raise ValueError(f"{name}: x has shape {tuple(x.shape)}; expected at least one element")
    return x if x.dtype == torch.float64 else x.float()


def percentile(x: Tensor, rank: float) -> Tensor:
    """The k-th smallest element of x, k = floor(0.01 * rank * N + 0.5) kept in [1, N]; 0-d f32,
    without gradient. rank: 0 to 100."""
    if not 0 <= rank <= 100:
        raise ValueError(f"percentile: rank = {rank:g}; expected 0 to 100")
    with torch.no_grad():
        values = _as_statistics(x, "percentile").detach().reshape(-1)
        count = values.numel()
        k = math.floor(0.01 * rank * count + 0.5)
        if k >= count:
            return values.amax().float()
        if k <= 1:
            return values.amin().float()
        return values.kthvalue(k).values.float()


def _rounded_up_to_power_of_two(scale: Tensor) -> Tensor:
    with torch.no_grad():
        mantissa = torch.frexp(scale).mantissa  # in [0.5, 1); 0.5 for a power of two
        power = scale / mantissa * torch.where(mantissa == 0.5, 0.5, 1.0).to(scale.dtype)
    return power + (scale - scale.detach())


def _finished_scale(scale: Tensor, spec: QuantSpec) -> Tensor:
    result = scale.float().clamp_min(_SCALE_FLOOR)
    return _rounded_up_to_power_of_two(result) if spec.is_power_of_two else result


def _checked_axis(x: Tensor, axis: int) -> int:
    if not -x.dim() <= axis < x.dim():
        raise ValueError(
            f"QuantSpec: axis = {axis}; expected a dimension of a tensor of shape {tuple(x.shape)}"
        )
    return axis % x.dim()


def _reduced(x: Tensor, spec: QuantSpec, largest: bool) -> Tensor:
    """Smallest or largest value for each scale that spec asks for."""
    dims: list[int] = []
    if spec.granularity == Granularity.PER_CHANNEL:
        axis = _checked_axis(x, spec.axis)
        dims = [d for d in range(x.dim()) if d != axis]
        if not dims:
            return x
    elif spec.granularity == Granularity.BLOCKED:
        axis = _checked_axis(x, spec.axis)
        blocks = -(-x.size(axis) // spec.block_size)
        # The zeros that fill up a short last block change neither an absmax nor a range that has to
        # hold 0.
        padding = [0] * (2 * (x.dim() - axis))
        padding[-1] = blocks * spec.block_size - x.size(axis)
        x = nn.functional.pad(x, padding).unflatten(axis, (blocks, spec.block_size))
        dims = [axis + 1]
    return x.amax(dims) if largest else x.amin(dims)


def range_of(x: Tensor, spec: QuantSpec) -> tuple[Tensor, Tensor]:
    """Lowest and highest value of x per tensor, channel or block (symmetric: -absmax and absmax).
    The gradient flows; x is not empty."""
    values = _as_statistics(x, "range_of")
    if spec.is_symmetric:
        absmax = _reduced(values.abs(), spec, True)
        return -absmax, absmax
    return _reduced(values, spec, False), _reduced(values, spec, True)


def qparams_from_range(low: Tensor, high: Tensor, spec: QuantSpec) -> tuple[Tensor, Tensor]:
    """Scale (f32, at least 1e-10) and zero point (int32) for the range [low, high].

    Symmetric: scale = max(|low|, |high|) / spec.divisor, zero point 0. Else the range is widened to
    hold 0, scale = (high - low) / (quant_max - quant_min). The gradient goes through the scale.
    """
    if low.shape != high.shape:
        raise ValueError(
            f"qparams_from_range: low has shape {tuple(low.shape)} and high {tuple(high.shape)}; "
            "expected the same shape"
        )
    if spec.is_symmetric:
        scale = _finished_scale(torch.maximum(low.abs(), high.abs()) / float(spec.divisor), spec)
        return scale, torch.zeros_like(scale, dtype=torch.int32)
    steps = float(spec.quant_max - spec.quant_min)
    bottom, top = low.clamp_max(0), high.clamp_min(0)
    scale = _finished_scale((top - bottom) / steps, spec)
    with torch.no_grad():
        zero_point = (-bottom / scale).clamp(0, steps).round() + float(spec.quant_min)
        return scale, zero_point.to(torch.int32)


class Observer(nn.Module):
    """Running mean of a per-tensor statistic: the first batch is copied, then low = (1 - momentum)
    * low + momentum * batch. Buffers low, high (f32) and steps (int64: batches seen).

        observer = qcdq.nn.Observer(statistic=qcdq.Scaling.MINMAX)
        observer.observe(batch)
        scale, zero_point = observer.qparams(qcdq.uint8())
    """

    low: Tensor
    high: Tensor
    steps: Tensor

    def __init__(
        self,
        statistic: Scaling = Scaling.PERCENTILE,
        rank: float = 99.999,
        symmetric: bool = True,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        if statistic not in (Scaling.MINMAX, Scaling.PERCENTILE):
            raise ValueError(f"Observer: statistic = {statistic!r}; expected MINMAX or PERCENTILE")
        if not 50 < rank <= 100:
            raise ValueError(f"Observer: rank = {rank:g}; expected more than 50 and at most 100")
        if not 0 < momentum <= 1:
            raise ValueError(
                f"Observer: momentum = {momentum:g}; expected more than 0 and at most 1"
            )
        self.statistic, self.rank = statistic, rank
        self.symmetric, self.momentum = symmetric, momentum
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def extra_repr(self) -> str:
        kind = "minmax" if self.statistic == Scaling.MINMAX else f"percentile {self.rank:g}"
        return kind if self.symmetric else kind + ", asymmetric"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Observer:
        return super()._apply(keep_dtype(fn), recurse)

    def observe(self, x: Tensor) -> None:
        """Takes one batch in; an empty one is passed over. No gradient."""
        if x.numel() == 0:
            return
        with torch.no_grad():
            x = x.detach()
            if self.statistic == Scaling.MINMAX:
                low, high = range_of(x, QuantSpec(is_symmetric=self.symmetric))
            elif self.symmetric:
                high = percentile(x.abs(), self.rank)
                low = -high
            else:
                low, high = percentile(x, 100 - self.rank), percentile(x, self.rank)
            if self.step_count() == 0:
                self.low.copy_(low)
                self.high.copy_(high)
            else:
                self.low.mul_(1 - self.momentum).add_(low.float(), alpha=self.momentum)
                self.high.mul_(1 - self.momentum).add_(high.float(), alpha=self.momentum)
            self.steps.add_(1)

    def step_count(self) -> int:
        """Batches seen."""
        return int(self.steps.item())

    def qparams(self, spec: QuantSpec) -> tuple[Tensor, Tensor]:
        """Scale and zero point of the range seen so far; RuntimeError before the first batch."""
        if self.step_count() == 0:
            raise RuntimeError("Observer: no batch has been observed yet; call observe(x) first")
        with torch.no_grad():
            return qparams_from_range(self.low, self.high, spec)
