"""Quantised layers: the same names, defaults and state dict as the C++ ones of qcdq/modules.h.

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = qcdq.nn.QuantConv2d(1, 16, 3, weight=qcdq.int4().per_channel(0).narrow())
            self.relu = qcdq.nn.QuantReLU(qcdq.uint4())
            self.fc = qcdq.nn.QuantLinear(400, 10, input=qcdq.uint8())

Weights and biases are in weighted.py, quantisers in quantizer.py, statistics in observers.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qcdq.observers import Observer, percentile, qparams_from_range, range_of
from qcdq.quantizer import Quantizer, QuantizerRole
from qcdq.spec import QuantSpec, int8, uint8
from qcdq.weighted import QuantWeighted

__all__ = [
    "Observer",
    "QuantConv1d",
    "QuantConv2d",
    "QuantConvTranspose1d",
    "QuantConvTranspose2d",
    "QuantIdentity",
    "QuantLinear",
    "QuantReLU",
    "Quantizer",
    "QuantizerRole",
    "name_layers",
    "percentile",
    "qparams_from_range",
    "range_of",
]

# One number for every dimension, or one each.
Size = int | Sequence[int]


def name_layers(root: nn.Module) -> None:
    """Gives every quantiser below `root` its layer's path, for messages: "QuantReLU 'relu1'"."""
    for name, module in root.named_modules():
        if isinstance(module, Quantizer):
            module.path = name.rpartition(".")[0]


class QuantIdentity(nn.Module):
    """Passes x on, quantised. Default: int8, learned. Works on any shape.

    qcdq.nn.QuantIdentity(qcdq.uint8().symmetric(False))
    """

    def __init__(self, spec: QuantSpec | None = None) -> None:
        super().__init__()
        self.act_quant = Quantizer(spec or int8(), QuantizerRole.ACTIVATION, "QuantIdentity")

    def forward(self, x: Tensor) -> Tensor:
        return self.act_quant(x)


class QuantReLU(nn.Module):
    """relu, then quantised. Default: uint8, learned.

    qcdq.nn.QuantReLU(qcdq.uint4())
    """

    def __init__(self, spec: QuantSpec | None = None) -> None:
        super().__init__()
        self.act_quant = Quantizer(spec or uint8(), QuantizerRole.ACTIVATION, "QuantReLU")

    def forward(self, x: Tensor) -> Tensor:
        return self.act_quant(torch.relu(x))


class QuantLinear(QuantWeighted):
    """y = x W^T + b, W [out_features, in_features]; x [..., in_features]. Default: weight int8
    narrow per tensor, input float.

        qcdq.nn.QuantLinear(400, 10, weight=qcdq.int4().per_channel(0), input=qcdq.uint8())
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool | QuantSpec | None = True,
        *,
        weight: QuantSpec | None = int8().narrow(),
        input: QuantSpec | None = None,
    ) -> None:
        if in_features <= 0 or out_features <= 0:
            raise ValueError(
                f"QuantLinear: in_features = {in_features}, out_features = {out_features}; "
                "expected both > 0"
            )
        super().__init__([out_features, in_features], out_features, bias, weight, input)
        self.in_features, self.out_features = in_features, out_features

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"

    def forward(self, x: Tensor) -> Tensor:
        x = self._prepared_input(x)
        weight, bias = self._prepared_weight_and_bias()
        return F.linear(x, weight, bias)


def _sizes(value: Size, dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value)


class _QuantConv(QuantWeighted):
    """Convolutions over [N, C, L] or [N, C, H, W]; padding with zeros."""

    _dims = 0
    _output_axis = 0  # of the weight

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool | QuantSpec | None = True,
        *,
        weight: QuantSpec | None = int8().narrow(),
        input: QuantSpec | None = None,
    ) -> None:
        channels = (in_channels, out_channels)
        if groups <= 0 or min(channels) <= 0 or any(count % groups for count in channels):
            raise ValueError(
                f"{type(self).__name__}: in_channels = {in_channels}, out_channels = "
                f"{out_channels}, groups = {groups}; expected channels > 0 that groups divides"
            )
        kernel = _sizes(kernel_size, self._dims)
        if self._output_axis == 0:
            sizes = [out_channels, in_channels // groups, *kernel]
            super().__init__(sizes, out_channels, bias, weight, input)
        else:
            sizes = [in_channels, out_channels // groups, *kernel]
            super().__init__(sizes, out_channels, bias, weight, input, self._output_axis, groups)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = kernel
        self.stride, self.padding = _sizes(stride, self._dims), _sizes(padding, self._dims)
        self.dilation = _sizes(dilation, self._dims)

    def extra_repr(self) -> str:
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}"
        )
        return text if self.groups == 1 else f"{text}, groups={self.groups}"

    def forward(self, x: Tensor) -> Tensor:
        x = self._prepared_input(x)
        weight, bias = self._prepared_weight_and_bias()
        convolve = F.conv1d if self._dims == 1 else F.conv2d
        return convolve(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


class QuantConv1d(_QuantConv):
    """Convolution over [N, C, L]; arguments as torch.nn.Conv1d's, and weight, input (specs)."""

    _dims = 1


class QuantConv2d(_QuantConv):
    """Convolution over [N, C, H, W].

    qcdq.nn.QuantConv2d(1, 16, 3, padding=1, weight=qcdq.int4().per_channel(0).narrow())
    """

    _dims = 2


class _QuantConvTranspose(_QuantConv):
    """The weight is [in, out / groups, ...]; the order of arguments is torch's."""

    _output_axis = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool | QuantSpec | None = True,
        dilation: Size = 1,
        *,
        weight: QuantSpec | None = int8().narrow(),
        input: QuantSpec | None = None,
    ) -> None:
        sizes = (kernel_size, stride, padding, dilation)
        super().__init__(
            in_channels, out_channels, *sizes, groups, bias, weight=weight, input=input
        )
        self.output_padding = _sizes(output_padding, self._dims)

    def forward(self, x: Tensor) -> Tensor:
        x = self._prepared_input(x)
        weight, bias = self._prepared_weight_and_bias()
        convolve = F.conv_transpose1d if self._dims == 1 else F.conv_transpose2d
        sizes = (self.stride, self.padding, self.output_padding)
        return convolve(x, weight, bias, *sizes, self.groups, self.dilation)


class QuantConvTranspose1d(_QuantConvTranspose):
    """Transposed convolution over [N, C, L]; torch.nn.ConvTranspose1d's arguments, and specs."""

    _dims = 1


class QuantConvTranspose2d(_QuantConvTranspose):
    """Transposed convolution over [N, C, H, W]; torch.nn.ConvTranspose2d's arguments, and specs."""

    _dims = 2
