# What QuantLinear and the convolutions of nn.py share: weight and bias, their quantisers, and when
# the scales that belong together are frozen. The C++ twin is in torch_plugin/modules.cpp.
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qcdq.quantizer import Quantizer, QuantizerRole
from qcdq.spec import Granularity, QuantSpec, int32


class QuantWeighted(nn.Module):
    """A layer's weight and bias with their quantisers; a forward comes with the layer.

    weight, input: None means float. bias: True (quantised to int32 at input scale * weight scale
    wherever both are quantised and the weight has one scale per tensor or output channel; else
    float), False (none), a spec, or None (float).
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        weight_sizes: Sequence[int],
        bias_size: int,
        bias: bool | QuantSpec | None,
        weight: QuantSpec | None,
        input: QuantSpec | None,
        bias_axis: int = 0,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self._bias_axis, self._groups = bias_axis, groups
        self._bias_by_default = isinstance(bias, bool)
        self._bias_spec = bias if isinstance(bias, QuantSpec) else None
        # A tuple: a quantiser of another layer must not become this layer's child.
        self._input_source: tuple[Quantizer, ...] = ()
        self._stale = False  # loaded since the last freeze
        name = type(self).__name__
        self.weight = nn.Parameter(torch.empty(*weight_sizes))
        nn.init.kaiming_uniform_(self.weight, math.sqrt(5))
        if bias is False:
            self.register_parameter("bias", None)
        else:
            fan_in = math.prod(weight_sizes[1:])
            bound = 1 / math.sqrt(fan_in) if fan_in > 0 else 0
            self.bias = nn.Parameter(torch.empty(bias_size))
            nn.init.uniform_(self.bias, -bound, bound)
        self.input_quant: Quantizer | None = None
        self.weight_quant: Quantizer | None = None
        self.bias_quant: Quantizer | None = None
        if input is not None:
            self.input_quant = Quantizer(input, QuantizerRole.ACTIVATION, name)
        if weight is not None:
            self.weight_quant = Quantizer(weight, QuantizerRole.WEIGHT, name, weight_sizes)
        if input is not None or not self._bias_by_default:
            self._register_bias_quantizer()
        self.register_load_state_dict_post_hook(_layer_loaded)

    def _register_bias_quantizer(self) -> None:
        if self.bias is None or (not self._bias_by_default and self._bias_spec is None):
            return
        spec = None if self.weight_quant is None else self.weight_quant.quant_spec
        per_channel = (
            spec is not None
            and spec.granularity == Granularity.PER_CHANNEL
            and spec.axis == self._bias_axis
        )
        possible = per_channel or (spec is not None and spec.granularity == Granularity.PER_TENSOR)
        if not possible and not self._bias_by_default:
            raise ValueError(
                f"{type(self).__name__}: bias = {self._bias_spec} with weight = {spec or 'float'}; "
                "expected a weight quantised per tensor or per channel along axis "
                f"{self._bias_axis} (the bias takes input scale * weight scale)"
            )
        if not possible:
            return
        sizes = [self.bias.size(0)] if per_channel else []
        self.bias_quant = Quantizer(
            self._bias_spec or int32(), QuantizerRole.BIAS, type(self).__name__, sizes
        )

    def set_input_quantizer(self, quantizer: Quantizer) -> None:
        """Says that the input comes quantised by an earlier layer (`relu.act_quant`): the bias
        then takes its scale. Call it in the net's constructor, before a state dict is loaded.
        """
        name = type(self).__name__
        if not isinstance(quantizer, Quantizer) or quantizer.role != QuantizerRole.ACTIVATION:
            raise ValueError(
                f"{name}: set_input_quantizer; expected the quantiser of an activation, such as "
                "relu.act_quant"
            )
        if self.input_quant is not None:
            raise ValueError(
                f"{name}: set_input_quantizer; expected a layer without an input quantiser of its "
                f"own, this one has {self.input_quant.quant_spec}"
            )
        self._input_source = (quantizer,)
        if self.bias_quant is None:
            self._register_bias_quantizer()

    def _input_scale(self) -> Tensor | None:
        if self.input_quant is not None:
            return self.input_quant.current_scale()
        return self._input_source[0].current_scale() if self._input_source else None

    def _bias_scale(self, input_scale: Tensor, weight_scale: Tensor) -> Tensor:
        assert self.bias is not None
        with torch.no_grad():
            scale = input_scale.to(weight_scale.device) * weight_scale
            # A grouped transposed convolution has one weight scale for the same channel of each
            # group.
            if scale.dim() == 1 and scale.size(0) != self.bias.size(0):
                scale = scale.repeat(self._groups)
            return scale

    def _zero_weight_scale(self, input_scale: Tensor | None) -> Tensor | None:
        """Weights that are all zero (a pruned channel) would get the least scale, 1e-10, and the
        int32 bias a range of about 1e-3: such a channel takes a scale at which its bias has 30
        bits."""
        if self.bias_quant is None or input_scale is None:
            return None
        assert self.bias is not None
        with torch.no_grad():
            codes = self.bias_quant.quant_spec.quant_max / 2
            needed = self.bias.abs().float() / (input_scale.to(self.bias.device) * codes)
            if self.bias_quant.scale.dim() == 0:
                return needed.amax()
            return needed if self._groups == 1 else needed.view(self._groups, -1).amax(0)

    def _freeze(self) -> None:
        self._stale = False
        scale = self._input_scale()
        # A layer that was given no source keeps the scales that belong together.
        if self.bias_quant is not None and scale is None and self.bias_quant.is_ready():
            return
        if self.weight_quant is not None:
            self.weight_quant.freeze(self.weight, self._zero_weight_scale(scale))
        if self.bias_quant is not None and scale is not None:
            assert self.weight_quant is not None
            self.bias_quant.set_scale(self._bias_scale(scale, self.weight_quant.scale))

    def train(self, mode: bool = True) -> QuantWeighted:
        super().train(mode)
        if not mode:
            self._freeze()
        return self

    def _prepared_input(self, x: Tensor) -> Tensor:
        return x if self.input_quant is None else self.input_quant(x)

    def _prepared_weight_and_bias(self) -> tuple[Tensor, Tensor | None]:
        if self._stale and not self.training:
            self._freeze()
        scale = self._input_scale() if self.training and self.bias_quant is not None else None
        weight, weight_scale = self.weight, None
        if self.weight_quant is not None:
            weight, weight_scale = self.weight_quant.forward_with_scale(
                weight, self._zero_weight_scale(scale)
            )
        if self.bias_quant is None or self.bias is None:
            return weight, self.bias
        if not self.training:
            return weight, self.bias_quant(self.bias)
        if scale is None or weight_scale is None:
            raise RuntimeError(
                f"{self.bias_quant.layer_name()}: its {self.bias_quant.quant_spec} bias takes "
                "input scale * weight scale, and the input's scale is not known; expected "
                "input=spec, or set_input_quantizer(quantizer) with one that has seen a batch"
            )
        return weight, self.bias_quant.forward_bias(
            self.bias, self._bias_scale(scale, weight_scale)
        )


def _layer_loaded(layer: QuantWeighted, _keys: Any) -> None:
    """A layer in eval mode takes what it has loaded into use: at once, or at its next forward where
    the input's scale is another layer's, which may come later in the file."""
    layer._stale = True
    if not layer.training and not layer._input_source:
        layer._freeze()
