# Quantizer in Python: finds a scale in training (statistics, then a learned parameter) and freezes
# it into buffers for eval, as torch_plugin/quantizer.cpp does. The layers of nn.py hold these.
from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qcdq.observers import Observer, keep_dtype, qparams_from_range, range_of
from qcdq.ops import fake_quantize, fake_quantize_learned
from qcdq.spec import Granularity, QuantSpec, Scaling

# A learned threshold gets its gradient from every element; dividing by the divisor has scaled it
# down already.
_GRAD_FACTOR = 1.0

# States of the buffer `ready`: a weight's learned scale may be ready for eval and not yet started.
_READY = 1
_LEARNING = 2


class QuantizerRole(enum.IntEnum):
    """What a Quantizer quantises; decides which specs are allowed and what DEFAULT means."""

    WEIGHT = 0
    ACTIVATION = 1
    BIAS = 2


def _resolved(spec: QuantSpec, role: QuantizerRole, owner: str, rank: int) -> QuantSpec:
    def refuse(what: str, expected: str) -> None:
        raise ValueError(f"{owner}: {what} quantiser {spec}; expected {expected}")

    source = spec.scale_source
    if role == QuantizerRole.WEIGHT:
        if spec.bits > 8:
            refuse("weight", "2 to 8 bits, or unsigned 1 to 8")
        if source == Scaling.PERCENTILE:
            refuse("weight", "scaling minmax, learned or fixed")
        if source == Scaling.DEFAULT:
            spec = spec.scaling(Scaling.MINMAX)
    elif role == QuantizerRole.ACTIVATION:
        if spec.bits > 16:
            refuse("activation", "2 to 16 bits, or unsigned 1 to 16")
        if spec.granularity != Granularity.PER_TENSOR:
            refuse("activation", "per_tensor (channels and blocks are for weights)")
        if source == Scaling.DEFAULT:
            spec = spec.scaling(Scaling.LEARNED)
    else:
        if not spec.is_signed or spec.is_narrow or not spec.is_symmetric or spec.bits < 8:
            refuse("bias", "a signed symmetric range of 8 to 32 bits")
        plain = spec.granularity == Granularity.PER_TENSOR and not spec.is_power_of_two
        if source != Scaling.DEFAULT or not plain:
            refuse("bias", "no scaling or granularity: the scale is input scale * weight scale")
    if spec.granularity == Granularity.PER_TENSOR:
        return spec
    if not -rank <= spec.axis < rank:
        refuse("weight", f"an axis of a weight with {rank} dimensions")
    if spec.granularity == Granularity.PER_CHANNEL:
        return spec.per_channel(spec.axis % rank)
    return spec.blocked(spec.axis % rank, spec.block_size)


class Quantizer(nn.Module):
    """One quantiser: buffers scale (f32), zero_point (int32), spec (QuantSpec.to_integers), ready;
    parameters threshold (and offset) where the scale is learned.

    In eval mode forward is one qcdq::fake_quantize on the buffers, which is what tracing and export
    see; train(False) writes them. Loading a state dict of another QuantSpec is refused.
    """

    scale: Tensor
    zero_point: Tensor
    spec: Tensor
    ready: Tensor

    def __init__(
        self,
        spec: QuantSpec,
        role: QuantizerRole,
        owner: str,
        value_sizes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.quant_spec = _resolved(spec, role, owner, len(value_sizes))
        self.role, self.owner, self.path = role, owner, ""
        self._stale = False  # loaded since the last freeze
        spec = self.quant_spec
        sizes = list(value_sizes) if role == QuantizerRole.BIAS else []
        if spec.granularity == Granularity.PER_CHANNEL:
            sizes = [value_sizes[spec.axis]]
        if spec.granularity == Granularity.BLOCKED:
            sizes = list(value_sizes)
            sizes[spec.axis] = -(-sizes[spec.axis] // spec.block_size)
        fixed = spec.scale_source == Scaling.FIXED
        scale = torch.full(sizes, spec.fixed_scale if fixed else 1.0, dtype=torch.float32)
        if fixed and spec.is_power_of_two:
            threshold = scale * float(spec.divisor)
            scale = qparams_from_range(-threshold, threshold, spec)[0]
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.zeros(sizes, dtype=torch.int32))
        self.register_buffer("spec", torch.tensor(spec.to_integers(), dtype=torch.int64))
        self.register_buffer("ready", torch.full((), _READY if fixed else 0, dtype=torch.int64))
        self._ready = _READY if fixed else 0  # what `ready` holds: forward never reads a tensor
        self.threshold: nn.Parameter | None = None
        self.offset: nn.Parameter | None = None
        if spec.scale_source == Scaling.LEARNED:
            self.threshold = nn.Parameter(torch.zeros(sizes))
            if not spec.is_symmetric:
                self.offset = nn.Parameter(torch.zeros(sizes))
        self.observer: Observer | None = None
        if role == QuantizerRole.ACTIVATION and not fixed:
            minmax = spec.scale_source == Scaling.MINMAX
            self.observer = Observer(
                statistic=Scaling.MINMAX if minmax else Scaling.PERCENTILE,
                rank=spec.percentile_rank,
                symmetric=spec.is_symmetric,
            )
        self.register_load_state_dict_post_hook(_loaded)

    def extra_repr(self) -> str:
        return str(self.quant_spec)

    def layer_name(self) -> str:
        """The layer's type, and its path once name_layers was called: "QuantReLU 'relu1'"."""
        return f"{self.owner} '{self.path}'" if self.path else self.owner

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Quantizer:
        return super()._apply(keep_dtype(fn), recurse)

    def train(self, mode: bool = True) -> Quantizer:
        super().train(mode)
        if not mode and self.role == QuantizerRole.ACTIVATION:
            self.freeze()
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any, **keywords: Any
    ) -> None:
        stored = state_dict.get(prefix + "spec")
        if stored is not None:
            loaded = QuantSpec.from_integers(stored.tolist())
            if loaded != self.quant_spec:
                raise ValueError(
                    f"{self.layer_name()}: the file holds a quantiser {loaded}; expected "
                    f"{self.quant_spec}"
                )
        super()._load_from_state_dict(state_dict, prefix, *arguments, **keywords)
        self._ready = int(self.ready.item())
        # The file may have been saved in training, with buffers older than the statistics.
        self._stale = self.role != QuantizerRole.BIAS

    def is_ready(self) -> bool:
        """Whether eval mode has a scale."""
        return self._ready > 0

    def _require_ready(self) -> None:
        if self.is_ready():
            return
        bias = self.role == QuantizerRole.BIAS
        what = " bias quantiser has no input scale yet" if bias else " quantiser has no scale yet"
        raise RuntimeError(
            f"{self.layer_name()}: eval mode before any statistics: its {self.quant_spec}{what}; "
            "run at least one batch in training mode, or load a trained state dict"
        )

    def _mark_ready(self, state: int) -> None:
        if self._ready >= state:
            return
        with torch.no_grad():
            self.ready.fill_(state)
        self._ready = state

    def _is_learning(self) -> bool:
        """Whether the parameter has taken over from the statistics."""
        if self.quant_spec.scale_source != Scaling.LEARNED:
            return False
        if self.role == QuantizerRole.WEIGHT:
            return self._ready >= _LEARNING
        assert self.observer is not None
        return self.observer.step_count() >= self.quant_spec.statistics_steps

    def _start_learning(self, low: Tensor, high: Tensor) -> None:
        spec = self.quant_spec
        assert self.threshold is not None
        with torch.no_grad():
            scale, zero_point = qparams_from_range(low, high, spec.power_of_two(False))
            steps = spec.divisor if spec.is_symmetric else spec.quant_max - spec.quant_min
            self.threshold.copy_(scale * float(steps))
            if self.offset is not None:
                self.offset.copy_(zero_point)

    def _learned_qparams(self) -> tuple[Tensor, Tensor]:
        assert self.threshold is not None
        if self.offset is None:
            return qparams_from_range(-self.threshold, self.threshold, self.quant_spec)
        span = self.threshold.abs()
        return qparams_from_range(torch.zeros_like(span), span, self.quant_spec)[0], self.offset

    def _weight_qparams(self, value: Tensor, zero_scale: Tensor | None) -> tuple[Tensor, Tensor]:
        """Any scale serves zeros: where there is nothing else, the one that the bias asks for."""
        low, high = range_of(value, self.quant_spec)
        scale, zero_point = qparams_from_range(low, high, self.quant_spec)
        if zero_scale is not None:
            is_zero = (low == 0).logical_and(high == 0)
            scale = torch.where(is_zero, torch.maximum(scale, zero_scale), scale)
        return scale, zero_point

    def _axes(self) -> dict[str, int | None]:
        spec = self.quant_spec
        if self.role == QuantizerRole.BIAS:
            return {"axis": 0 if self.scale.dim() > 0 else None, "block_size": None}
        blocked = spec.granularity == Granularity.BLOCKED
        return {
            "axis": None if spec.granularity == Granularity.PER_TENSOR else spec.axis,
            "block_size": spec.block_size if blocked else None,
        }

    def _quantized(self, x: Tensor, scale: Tensor) -> Tensor:
        spec = self.quant_spec
        return fake_quantize(
            x, scale, self.zero_point, spec.quant_min, spec.quant_max, **self._axes()
        )

    def forward(self, x: Tensor) -> Tensor:
        """x quantised and dequantised. Eval before any statistics: RuntimeError."""
        return self.forward_with_scale(x)[0]

    def forward_with_scale(
        self, x: Tensor, zero_scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The same and the scale that was used. zero_scale: least scale of a weight's tensors or
        channels that are all zero, where a bias needs one to fit."""
        fixed = self.quant_spec.scale_source == Scaling.FIXED
        if self.training and not fixed and self.role != QuantizerRole.BIAS:
            return self._train_forward(x, zero_scale)
        if self._stale:
            self.freeze(x, zero_scale)
        self._require_ready()
        return self._quantized(x, self.scale), self.scale

    def _train_forward(self, x: Tensor, zero_scale: Tensor | None) -> tuple[Tensor, Tensor]:
        spec = self.quant_spec
        if x.numel() == 0:
            return self._quantized(x, self.scale), self.scale
        if self.role == QuantizerRole.ACTIVATION and not self._is_learning():
            assert self.observer is not None
            self.observer.observe(x)
            scale, zero_point = self.observer.qparams(spec)
            if self._is_learning():
                self._start_learning(self.observer.low, self.observer.high)
            self._mark_ready(_READY)
            return fake_quantize(x, scale, zero_point, spec.quant_min, spec.quant_max), scale
        if spec.scale_source == Scaling.LEARNED:
            if not self._is_learning():
                self._start_learning(*range_of(x.detach(), spec))
                self._mark_ready(_LEARNING)
            scale, zero_point = self._learned_qparams()
        else:
            scale, zero_point = self._weight_qparams(x, zero_scale)
        y = fake_quantize_learned(
            x,
            scale,
            zero_point.float(),
            spec.quant_min,
            spec.quant_max,
            grad_factor=_GRAD_FACTOR,
            **self._axes(),
        )
        return y, scale

    def forward_bias(self, bias: Tensor, bias_scale: Tensor) -> Tensor:
        """Bias: quantises with this scale (detached)."""
        return self._quantized(bias, bias_scale.detach())

    def _frozen_qparams(
        self, value: Tensor | None, zero_scale: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        spec = self.quant_spec
        if self.role == QuantizerRole.ACTIVATION:
            assert self.observer is not None
            return self._learned_qparams() if self._is_learning() else self.observer.qparams(spec)
        assert value is not None
        if spec.scale_source != Scaling.LEARNED:
            return self._weight_qparams(value.detach(), zero_scale)
        if not self._is_learning():
            self._start_learning(*range_of(value.detach(), spec))
        return self._learned_qparams()

    def freeze(self, value: Tensor | None = None, zero_scale: Tensor | None = None) -> None:
        """Writes the scale that training has arrived at into the buffers; a weight's comes from
        `value`. train(False) calls it."""
        self._stale = False
        spec = self.quant_spec
        if spec.scale_source == Scaling.FIXED:
            return
        if self.role == QuantizerRole.ACTIVATION:
            assert self.observer is not None
            if self.observer.step_count() == 0:
                return
        with torch.no_grad():
            scale, zero_point = self._frozen_qparams(value, zero_scale)
            self.scale.copy_(scale)
            self.zero_point.copy_(zero_point.round().clamp(spec.quant_min, spec.quant_max))
        self._mark_ready(_READY)

    def set_scale(self, scale: Tensor) -> None:
        """Bias: the scale that eval uses."""
        with torch.no_grad():
            self.scale.copy_(scale)
        self._mark_ready(_READY)

    def current_scale(self) -> Tensor | None:
        """The scale that eval would use now, without gradient; None before any statistics.
        Activations only."""
        if self.quant_spec.scale_source == Scaling.FIXED:
            return self.scale
        if self.role != QuantizerRole.ACTIVATION:
            raise ValueError(
                f"{self.layer_name()}: current_scale; expected the quantiser of an activation"
            )
        assert self.observer is not None
        if self.observer.step_count() == 0:
            return None
        with torch.no_grad():
            return self._frozen_qparams(None, None)[0]


def _loaded(quantizer: Quantizer, _keys: Any) -> None:
    """An activation in eval mode takes what it has loaded into use at once."""
    if not quantizer.training and quantizer.role == QuantizerRole.ACTIVATION:
        quantizer.freeze()
