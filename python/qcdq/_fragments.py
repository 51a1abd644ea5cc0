# The nodes of a quantiser, as libqcdq_onnx.so decides them (symbolic/quantizer/nodes.h), and their
# replay into any graph. onnx_hooks.py has the two graphs of torch.onnx that take them.
from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

# ONNX's numbers of element types (TensorProto.DataType).
ONNX_DTYPES: dict[torch.dtype, int] = {
    torch.float32: 1,
    torch.uint8: 2,
    torch.int8: 3,
    torch.uint16: 4,
    torch.int16: 5,
    torch.int32: 6,
    torch.int64: 7,
    torch.bool: 9,
    torch.float16: 10,
    torch.float64: 11,
    torch.bfloat16: 16,
}


@dataclasses.dataclass(frozen=True)
class Operand:
    """What is known of a tensor argument: element type as ONNX's number (0: not known), shape
    (None: not known; -1: dynamic), and its constant."""

    dtype: int = 0
    shape: tuple[int, ...] | None = None
    constant: torch.Tensor | None = None


@dataclasses.dataclass(frozen=True)
class Fragment:
    """Nodes as dicts of op, inputs, attributes and results; constants by their index."""

    nodes: list[dict[str, Any]]
    results: list[str]
    constants: Sequence[torch.Tensor]

    def replay(
        self,
        values: Mapping[str, Any],
        constant: Callable[[torch.Tensor], Any],
        node: Callable[[str, list[Any], dict[str, Any], int], Sequence[Any]],
    ) -> list[Any]:
        """Adds every node through node(op, inputs, attributes, number of results); `values` holds
        x and, where they are not constant, scale and zero_point. Returns the torch op's results."""
        known = dict(values)
        for step in self.nodes:
            inputs = [
                known[name] if isinstance(name, str) else constant(self.constants[name["constant"]])
                for name in step["inputs"]
            ]
            results = node(step["op"], inputs, step["attributes"], len(step["results"]))
            known.update(zip(step["results"], results, strict=True))
        return [known[name] for name in self.results]


def _parsed(answer: tuple[str, Sequence[torch.Tensor]]) -> Fragment:
    text = json.loads(answer[0])
    return Fragment(text["nodes"], text["results"], answer[1])


def quant_fragment(
    op: str,
    x: Operand,
    scale: Operand,
    zero_point: Operand,
    *,
    opset: int,
    quant_min: int = 0,
    quant_max: int = 0,
    axis: int | None = None,
    block_size: int | None = None,
    dtype: int = 0,
    is_weight: bool = False,
    signed_activations: bool = False,
) -> Fragment:
    """The nodes of qcdq::quantize, dequantize, fake_quantize or fake_quantize_learned.

    Scale and zero point have to be constant both; else the nodes compute with their values.
    Raises ValueError that names the argument, its value and what was expected.
    """
    constant = scale.constant is not None and zero_point.constant is not None
    return _parsed(
        torch.ops.qcdq_onnx.quant_fragment(
            op,
            x.dtype,
            x.shape,
            scale.constant if constant else None,
            zero_point.constant if constant else None,
            quant_min,
            quant_max,
            axis,
            block_size,
            dtype,
            is_weight,
            scale.dtype,
            scale.shape,
            zero_point.dtype,
            zero_point.shape,
            opset,
            signed_activations,
        )
    )


def dynamic_quant_fragment(
    op: str,
    x: Operand,
    quant_min: int,
    quant_max: int,
    *,
    opset: int,
    symmetric: bool = False,
    axis: int | None = None,
    block_size: int | None = None,
) -> Fragment:
    """The nodes of qcdq::choose_qparams or qcdq::fake_quantize_dynamic."""
    return _parsed(
        torch.ops.qcdq_onnx.dynamic_quant_fragment(
            op, x.dtype, quant_min, quant_max, symmetric, axis, block_size, opset
        )
    )
