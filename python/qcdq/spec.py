# QuantSpec in Python: the same fields, setters, checks, text and integers as
# include/qcdq/quant_spec.h, so that one state dict serves both languages.
from __future__ import annotations

import dataclasses
import enum
import math
import struct
from collections.abc import Sequence
from typing import NoReturn


class Granularity(enum.IntEnum):
    """How many values share one scale: the tensor, an index along axis, a block along axis."""

    PER_TENSOR = 0
    PER_CHANNEL = 1
    BLOCKED = 2


class Scaling(enum.IntEnum):
    """How the scale is found; DEFAULT is the layer's choice (weight MINMAX, activation LEARNED)."""

    DEFAULT = 0
    MINMAX = 1
    PERCENTILE = 2
    LEARNED = 3
    FIXED = 4


def _refuse(field: str, value: object, expected: str) -> NoReturn:
    raise ValueError(f"QuantSpec: {field} = {value}; expected {expected}")


def _as_float32(value: float) -> float:
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.inf


def _bits_of(value: float) -> int:
    return struct.unpack("<q", struct.pack("<d", value))[0]


def _float_of(bits: int) -> float:
    return struct.unpack("<d", struct.pack("<q", bits))[0]


@dataclasses.dataclass(frozen=True)
class QuantSpec:
    """Describes a quantiser: code = clamp(round_half_even(x / scale) + zero_point, quant_min,
    quant_max). Setters return a changed copy:

        weight = qcdq.int4().per_channel(0).narrow()   # codes [-7, 7], a scale per output channel
        shifted = qcdq.uint8().symmetric(False)        # zero point from the data
    """

    bits: int = 8
    is_signed: bool = True
    is_narrow: bool = False
    is_symmetric: bool = True
    is_power_of_two: bool = False
    granularity: Granularity = Granularity.PER_TENSOR
    axis: int = 0
    block_size: int = 0
    scale_source: Scaling = Scaling.DEFAULT
    fixed_scale: float = 0.0
    percentile_rank: float = 99.999
    statistics_steps: int = 300

    def __post_init__(self) -> None:
        self.check()

    def _with(self, **fields: object) -> QuantSpec:
        return dataclasses.replace(self, **fields)

    def per_tensor(self) -> QuantSpec:
        """One scale for the whole tensor."""
        return self._with(granularity=Granularity.PER_TENSOR, axis=0, block_size=0)

    def per_channel(self, axis: int) -> QuantSpec:
        """One scale per index of dimension `axis`."""
        return self._with(granularity=Granularity.PER_CHANNEL, axis=axis, block_size=0)

    def blocked(self, axis: int, size: int) -> QuantSpec:
        """One scale per `size` neighbours along dimension `axis`; the last block may be shorter."""
        return self._with(granularity=Granularity.BLOCKED, axis=axis, block_size=size)

    def narrow(self, on: bool = True) -> QuantSpec:
        """Signed ranges only: drops the lowest code."""
        return self._with(is_narrow=on)

    def symmetric(self, on: bool = True) -> QuantSpec:
        """False: the zero point comes from the data."""
        return self._with(is_symmetric=on)

    def scaling(self, source: Scaling) -> QuantSpec:
        """Says how the scale is found; for a scale known beforehand use fixed(scale)."""
        if source == Scaling.FIXED:
            _refuse("scaling", "FIXED", "fixed(scale), which says the scale too")
        return self._with(scale_source=Scaling(source), fixed_scale=0.0)

    def fixed(self, scale: float) -> QuantSpec:
        """A scale known beforehand, finite and > 0."""
        return self._with(scale_source=Scaling.FIXED, fixed_scale=float(scale))

    def power_of_two(self, on: bool = True) -> QuantSpec:
        """Fixed point: the scale found is rounded up to a power of two."""
        return self._with(is_power_of_two=on)

    def percentile(self, rank: float) -> QuantSpec:
        """Rank in (50, 100] of the percentile statistic."""
        return self._with(percentile_rank=float(rank))

    def collect_steps(self, steps: int) -> QuantSpec:
        """Training steps of statistics before a learned scale takes over, >= 1."""
        return self._with(statistics_steps=steps)

    @property
    def quant_min(self) -> int:
        """Lowest code."""
        if not self.is_signed:
            return 0
        return -(1 << (self.bits - 1)) + (1 if self.is_narrow else 0)

    @property
    def quant_max(self) -> int:
        """Highest code."""
        return (1 << (self.bits - 1 if self.is_signed else self.bits)) - 1

    @property
    def divisor(self) -> int:
        """scale = threshold / divisor for zero point 0: -quant_min if signed, else quant_max."""
        return -self.quant_min if self.is_signed else self.quant_max

    def check(self) -> None:
        """ValueError that names the field, its value and what was expected."""
        if not 1 <= self.bits <= 32:
            _refuse("bits", self.bits, "1 to 32")
        if self.is_signed and self.bits == 1:
            _refuse(
                "bits",
                "1 (signed)",
                "2 or more for a signed range, or unsigned 1 bit: uint1()",
            )
        if not self.is_signed and self.bits == 32:
            _refuse("bits", "32 (unsigned)", "31 or fewer for an unsigned range")
        if self.is_narrow and not self.is_signed:
            _refuse("narrow", "true (unsigned)", "a signed range")
        if self.granularity == Granularity.BLOCKED and self.block_size < 1:
            _refuse("block_size", self.block_size, "1 or more")
        if self.scale_source == Scaling.FIXED:
            narrow = _as_float32(self.fixed_scale)
            if not narrow > 0 or not math.isfinite(narrow):
                _refuse("fixed scale", f"{self.fixed_scale:g}", "a finite float32 number > 0")
            if not self.is_symmetric:
                _refuse("symmetric", "false (fixed scale)", "true: a fixed scale has zero point 0")
        if not 50 < self.percentile_rank <= 100:
            _refuse("percentile", f"{self.percentile_rank:g}", "more than 50 and at most 100")
        if self.statistics_steps < 1:
            _refuse("collect_steps", self.statistics_steps, "1 or more")

    def __str__(self) -> str:
        plain = QuantSpec.__dataclass_fields__
        parts = [f"{'int' if self.is_signed else 'uint'}{self.bits}"]
        if self.is_narrow:
            parts.append("narrow")
        if not self.is_symmetric:
            parts.append("asymmetric")
        if self.granularity == Granularity.PER_CHANNEL:
            parts.append(f"per_channel({self.axis})")
        if self.granularity == Granularity.BLOCKED:
            parts.append(f"blocked({self.axis}, {self.block_size})")
        if self.scale_source == Scaling.FIXED:
            parts.append(f"fixed({self.fixed_scale:g})")
        elif self.scale_source != Scaling.DEFAULT:
            parts.append(Scaling(self.scale_source).name.lower())
        if self.is_power_of_two:
            parts.append("power_of_two")
        if self.percentile_rank != plain["percentile_rank"].default:
            parts.append(f"rank({self.percentile_rank:g})")
        if self.statistics_steps != plain["statistics_steps"].default:
            parts.append(f"collect_steps({self.statistics_steps})")
        return " ".join(parts)

    def to_integers(self) -> list[int]:
        """The twelve integers that the state dict holds (doubles by their bits)."""
        return [
            self.bits,
            int(self.is_signed),
            int(self.is_narrow),
            int(self.is_symmetric),
            int(self.is_power_of_two),
            int(self.granularity),
            self.axis,
            self.block_size,
            int(self.scale_source),
            _bits_of(self.fixed_scale),
            _bits_of(self.percentile_rank),
            self.statistics_steps,
        ]

    @classmethod
    def from_integers(cls, fields: Sequence[int]) -> QuantSpec:
        """The inverse of to_integers; ValueError for anything else."""
        if len(fields) != len(cls.__dataclass_fields__):
            _refuse("number of stored fields", len(fields), str(len(cls.__dataclass_fields__)))
        if not 0 <= fields[5] <= 2:
            _refuse("granularity", fields[5], "0, 1 or 2")
        if not 0 <= fields[8] <= 4:
            _refuse("scaling", fields[8], "0 to 4")
        return cls(
            bits=fields[0],
            is_signed=fields[1] != 0,
            is_narrow=fields[2] != 0,
            is_symmetric=fields[3] != 0,
            is_power_of_two=fields[4] != 0,
            granularity=Granularity(fields[5]),
            axis=fields[6],
            block_size=fields[7],
            scale_source=Scaling(fields[8]),
            fixed_scale=_float_of(fields[9]),
            percentile_rank=_float_of(fields[10]),
            statistics_steps=fields[11],
        )


def intn(bits: int) -> QuantSpec:
    """A signed spec of any width from 2 to 32 (layers narrow that down)."""
    return QuantSpec(bits=bits)


def uintn(bits: int) -> QuantSpec:
    """An unsigned spec of any width from 1 to 31."""
    return QuantSpec(bits=bits, is_signed=False)


def int2() -> QuantSpec:
    """Codes [-2, 1]."""
    return intn(2)


def int3() -> QuantSpec:
    """Codes [-4, 3]."""
    return intn(3)


def int4() -> QuantSpec:
    """Codes [-8, 7]."""
    return intn(4)


def int8() -> QuantSpec:
    """Codes [-128, 127]."""
    return intn(8)


def int16() -> QuantSpec:
    """Codes [-32768, 32767]."""
    return intn(16)


def int32() -> QuantSpec:
    """Codes of 32 bits: biases."""
    return intn(32)


def uint1() -> QuantSpec:
    """Codes 0 and 1."""
    return uintn(1)


def uint2() -> QuantSpec:
    """Codes [0, 3]."""
    return uintn(2)


def uint3() -> QuantSpec:
    """Codes [0, 7]."""
    return uintn(3)


def uint4() -> QuantSpec:
    """Codes [0, 15]."""
    return uintn(4)


def uint8() -> QuantSpec:
    """Codes [0, 255]."""
    return uintn(8)


def uint16() -> QuantSpec:
    """Codes [0, 65535]."""
    return uintn(16)
