# torch.onnx learns qcdq's ops here: register_onnx() for dynamo=False, translation_table() for
# dynamo=True. Which nodes they become is the library's answer (_fragments.py).
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from qcdq._fragments import (
    Fragment,
    Operand,
    dynamic_quant_fragment,
    onnx_dtype,
    quant_fragment,
)

_OLDEST_OPSET = 10  # of QuantizeLinear
_OLDEST_DYNAMO_OPSET = 18  # below it torch.onnx converts what it wrote at 18
_STATIC_OPS = ("quantize", "dequantize", "fake_quantize", "fake_quantize_learned")
_DYNAMIC_OPS = ("choose_qparams", "fake_quantize_dynamic")


# --- dynamo=False: values are torch._C.Value, nodes are added by a GraphContext g ---


def _is_weight(value: Any) -> bool:
    """Whether a value is a parameter, as far as the TorchScript exporter says: it hands parameters
    and inputs over alike. Parameters have a gradient, or the name of their place in the module."""
    if value.node().kind() != "prim::Param":
        return value.node().kind() == "onnx::Constant"
    module, _, name = value.debugName().rpartition(".")
    return value.requires_grad() or (bool(module) and not name.isdigit())


def _operand(value: Any) -> Operand:
    kind = torch.onnx.JitScalarType.from_value(value, torch.onnx.JitScalarType.UNDEFINED)
    dtype = 0
    if kind != torch.onnx.JitScalarType.UNDEFINED:
        dtype = onnx_dtype(kind.dtype())
    shape = None
    if value.type().kind() == "TensorType":
        sizes = value.type().varyingSizes()
        if sizes is not None:
            shape = tuple(-1 if size is None else size for size in sizes)
    constant = value.node().t("value") if value.node().kind() == "onnx::Constant" else None
    return Operand(dtype, shape, constant)


def _is_wide(quant_min: int = 0, quant_max: int = 0, **_others: Any) -> bool:
    """Whether codes take 16 bits: int16 then, because torch.onnx's graphs have no uint16."""
    return quant_max - quant_min > 255


def _literal(op: str, name: str, value: Any) -> Any:
    """The Python value of an int, bool or ScalarType argument; None for None."""
    node = value.node()
    if node.kind() == "prim::Constant" and node.output().type().kind() == "NoneType":
        return None
    if node.kind() == "onnx::Constant":
        return node.t("value").item()
    raise ValueError(f"{op}: argument '{name}' is known at run time only, expected a constant")


def _replay_torchscript(op: str, g: Any, fragment: Fragment, values: dict[str, Any]) -> list[Any]:
    def refuse_uint16(found: bool) -> None:
        if found:
            raise ValueError(
                f"{op}: its codes are uint16, which torch.onnx has no type for with dynamo=False; "
                "expected a range within [-32768, 32767] (or dynamo=True, or qcdq.export_onnx)"
            )

    def constant(tensor: torch.Tensor) -> Any:
        refuse_uint16(tensor.dtype == torch.uint16)
        return g.op("Constant", value_t=tensor)

    def node(op: str, inputs: list[Any], attributes: dict[str, Any], count: int) -> Sequence[Any]:
        refuse_uint16(attributes.get("to") == onnx_dtype(torch.uint16))
        suffixed = {
            f"{name}_{'i' if isinstance(value, int) else 'f'}": value
            for name, value in attributes.items()
        }
        results = g.op(op, *inputs, outputs=count, **suffixed)
        return [results] if count == 1 else results

    return fragment.replay(values, constant, node)


def _require_opset(op: str, opset: int) -> None:
    if opset < _OLDEST_OPSET:
        raise ValueError(
            f"{op}: QuantizeLinear needs opset {_OLDEST_OPSET} (opset_version = {opset}); "
            f"expected opset_version >= {_OLDEST_OPSET}"
        )


def _torchscript_symbolic(name: str) -> Callable[..., Any]:
    op = f"qcdq::{name}"
    schema = getattr(torch.ops.qcdq, name).default._schema

    def symbolic(g: Any, *values: Any) -> Any:
        _require_opset(op, g.opset)
        if len(values) != len(schema.arguments):
            raise ValueError(
                f"{op}: {len(values)} arguments; expected the {len(schema.arguments)} of {schema}: "
                "an overload of another library has no ONNX form"
            )
        arguments = dict(zip((a.name for a in schema.arguments), values, strict=True))
        tensors = {
            a.name: arguments.pop(a.name) for a in schema.arguments if str(a.type) == "Tensor"
        }
        literals = {key: _literal(op, key, value) for key, value in arguments.items()}
        literals.pop("grad_factor", None)
        x = tensors.pop("q" if name == "dequantize" else "x")
        operand = _operand(x)
        if name in _DYNAMIC_OPS:
            fragment = dynamic_quant_fragment(op, operand, opset=g.opset, **literals)
        else:
            if literals.get("dtype") is not None:
                literals["dtype"] = onnx_dtype(literals["dtype"])  # torch's own number
            elif "dtype" in literals:  # dequantize: the scale's own type
                literals["dtype"] = _operand(tensors["scale"]).dtype
            fragment = quant_fragment(
                op,
                operand,
                *(_operand(value) for value in tensors.values()),
                opset=g.opset,
                is_weight=_is_weight(x),
                signed_activations=_is_wide(**literals),
                **literals,
            )
        results = _replay_torchscript(op, g, fragment, {"x": x, **tensors})
        if name.startswith("fake_quantize"):
            results[0].setType(x.type())
        return results[0] if len(results) == 1 else tuple(results)

    return symbolic


def register_onnx() -> None:
    """Teaches torch.onnx.export(dynamo=False) qcdq's ops, at every opset from 10 on.

    A weight becomes float -> QuantizeLinear -> Clip -> DequantizeLinear; what is computed from
    buffers, such as a zero point in its storage type, torch.onnx folds into constants
    (do_constant_folding, its default). May be called more than once. Without it
    torch.onnx fails with "unrecognized namespace qcdq".

        qcdq.register_onnx()
        torch.onnx.export(model, (x,), "model.onnx", dynamo=False, opset_version=17)
    """
    for name in (*_STATIC_OPS, *_DYNAMIC_OPS):
        torch.onnx.register_custom_op_symbolic(f"qcdq::{name}", _torchscript_symbolic(name), 9)


# --- dynamo=True: values are onnx_ir Values, nodes are recorded by onnxscript's evaluator ---


def _ir_operand(value: Any) -> Operand:
    shape = None
    if value.shape is not None:
        shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    constant = None
    if value.const_value is not None:
        constant = torch.from_numpy(value.const_value.numpy().copy())
    return Operand(0 if value.dtype is None else int(value.dtype), shape, constant)


def _is_parameter(value: Any) -> bool:
    """Whether an input of the exported program is a parameter, buffer or lifted constant:
    torch.export names those p_..., b_... and c_...."""
    return value.producer() is None and str(value.name).startswith(("p_", "b_", "c_"))


def _replay_onnxscript(fragment: Fragment, values: dict[str, Any]) -> list[Any]:
    import onnx
    import onnxscript

    opset = onnxscript.evaluator.default().opset

    def constant(tensor: torch.Tensor) -> Any:
        return opset.Constant(value=onnx.numpy_helper.from_array(tensor.numpy()))

    def node(op: str, inputs: list[Any], attributes: dict[str, Any], count: int) -> Sequence[Any]:
        results = getattr(opset, op)(*inputs, **attributes)
        return [results] if count == 1 else results

    return fragment.replay(values, constant, node)


def _dynamo_translation(name: str) -> Callable[..., Any]:
    import onnxscript

    op = f"qcdq::{name}"

    def opset() -> int:
        version = onnxscript.evaluator.default().opset.version
        if version < _OLDEST_DYNAMO_OPSET:
            raise ValueError(
                f"{op}: opset_version = {version}; expected {_OLDEST_DYNAMO_OPSET} or newer with "
                "dynamo=True"
            )
        return version

    def static(x: Any, scale: Any, zero_point: Any, *arguments: Any, **keywords: Any) -> Any:
        keywords.update(zip(("quant_min", "quant_max"), arguments, strict=False))
        keywords.pop("grad_factor", None)
        if keywords.get("dtype", 0) in (None, -1):
            keywords["dtype"] = 0
        if name == "dequantize" and keywords.get("dtype", 0) == 0:
            keywords["dtype"] = _ir_operand(scale).dtype
        fragment = quant_fragment(
            op,
            _ir_operand(x),
            _ir_operand(scale),
            _ir_operand(zero_point),
            opset=opset(),
            is_weight=_is_parameter(x),
            **keywords,
        )
        return _replay_onnxscript(fragment, {"x": x, "scale": scale, "zero_point": zero_point})[0]

    def dynamic(x: Any, quant_min: int, quant_max: int, **keywords: Any) -> Any:
        fragment = dynamic_quant_fragment(
            op, _ir_operand(x), quant_min, quant_max, opset=opset(), **keywords
        )
        results = _replay_onnxscript(fragment, {"x": x})
        return results[0] if len(results) == 1 else tuple(results)

    return dynamic if name in _DYNAMIC_OPS else static


def translation_table(
    opset_version: int | None = None,
) -> dict[Callable[..., Any], Callable[..., Any]]:
    """The custom_translation_table of torch.onnx.export(dynamo=True) for qcdq's ops.

    opset_version: the one that goes to torch.onnx.export, if given; ValueError below 18, where
    torch.onnx has no exporter of its own but converts a file of opset 18. Needs the package
    onnxscript, as dynamo=True itself does.

        torch.onnx.export(model, (x,), "model.onnx", dynamo=True, opset_version=21,
                          custom_translation_table=qcdq.translation_table(21))
    """
    if opset_version is not None and opset_version < _OLDEST_DYNAMO_OPSET:
        raise ValueError(
            f"translation_table: opset_version = {opset_version}; expected "
            f"{_OLDEST_DYNAMO_OPSET} or newer (dynamo=True starts there; older opsets: "
            "qcdq.register_onnx() and dynamo=False, or qcdq.export_onnx)"
        )
    return {
        getattr(torch.ops.qcdq, name).default: _dynamo_translation(name)
        for name in (*_STATIC_OPS, *_DYNAMIC_OPS)
    }
