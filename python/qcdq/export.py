# export_onnx: our own exporter (libqcdq_onnx.so) from Python. The model goes through a temporary
# TorchScript or .pt2 file into the registered op qcdq_onnx::export_file.
from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from qcdq._fragments import request_text

DynamicAxes = Mapping[str, Mapping[int, str] | Sequence[int]]
Model = nn.Module | torch.export.ExportedProgram | str | os.PathLike


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What was written. `notes` are the lines a user should read."""

    path: str
    opset: int
    ir_version: int
    file_bytes: int
    external_bytes: int
    nodes_by_op: dict[str, int]
    notes: list[str]
    phases: dict[str, float]  # seconds

    @property
    def seconds(self) -> float:
        return sum(self.phases.values())


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode, and every module's own mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
    except NotImplementedError:  # a module of torch.export, whose mode is part of its graph
        modes = []
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _save(model: Model, inputs: tuple[Any, ...], folder: str) -> str:
    """The file that the exporter reads: `model` itself where it is one already."""
    if isinstance(model, (str, os.PathLike)):
        return os.fspath(model)
    if isinstance(model, torch.export.ExportedProgram):
        path = os.path.join(folder, "model.pt2")
        torch.export.save(model, path)
        return path
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"export_onnx: model is a {type(model).__name__}; expected a torch.nn.Module, a "
            "torch.export.ExportedProgram, or the path of a .pt or .pt2 file"
        )
    path = os.path.join(folder, "model.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch.jit, which the file format needs
        if not isinstance(model, torch.jit.ScriptModule):
            with _eval_mode(model), torch.no_grad():
                model = torch.jit.trace(model, inputs, check_trace=False)
        torch.jit.save(model, path)
    return path


def _dynamic(axes: DynamicAxes) -> list[dict[str, Any]]:
    """torch.onnx's dynamic_axes ({"x": {0: "N"}} or {"x": [0]}) as the exporter takes them."""
    return [
        {"input": name, "axis": axis, "symbol": symbol}
        for name, chosen in axes.items()
        for axis, symbol in (
            chosen.items()
            if isinstance(chosen, Mapping)
            else ((axis, f"{name}_dim_{axis}") for axis in chosen)
        )
    ]


def _one_of(values: Mapping[str, Any], default: Any = dataclasses.MISSING) -> Any:
    """The one argument given of several names for the same thing."""
    given = {name: value for name, value in values.items() if value is not None}
    if len(given) > 1:
        raise TypeError(f"export_onnx: {' and '.join(given)} mean the same; expected one of them")
    if given:
        return next(iter(given.values()))
    if default is dataclasses.MISSING:
        raise TypeError(f"export_onnx: {next(iter(values))} is missing")
    return default


def export_onnx(
    model: Model,
    args: Any = None,
    path: str | os.PathLike[str] | None = None,
    *,
    opset: int | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_axes: DynamicAxes | None = None,
    activation_storage: str = "auto",
    weights: str = "int",
    weight_storage: str = "int8",
    external_data: str = "auto",
    cast_f64: bool = False,
    dump: str | os.PathLike[str] | None = None,
    input_t: Any = None,
    export_path: str | os.PathLike[str] | None = None,
    opset_version: int | None = None,
) -> ExportReport:
    """Exports a model to ONNX as QCDQ with qcdq's own exporter, and returns the report.

    model: a torch.nn.Module (traced in eval mode, then given its own mode back), a ScriptModule, a
    torch.export.ExportedProgram, or the path of a .pt or .pt2 file. args: the example input, or a
    tuple of them; their types and shapes matter, not their values (a program of torch.export has
    its own and needs none). opset: 10 to 26, default 21.
    dynamic_axes: {"x": {0: "N"}}. dump: a folder for the graph as text after each pass. The other
    options are those of `qcdq export` (docs/cli.md). input_t, export_path and opset_version are
    Brevitas's and torch.onnx's names for args, path and opset. Raises ValueError or RuntimeError
    that names op, argument and value; `path` is untouched then.

        report = qcdq.export_onnx(net, torch.randn(1, 3, 32, 32), "net.onnx", opset=21)
    """
    inputs = _one_of({"args": args, "input_t": input_t}, None)
    if inputs is None:
        inputs = ()
    inputs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    target = os.fspath(_one_of({"path": path, "export_path": export_path}))
    if dump is not None and not os.fspath(dump):
        raise ValueError("export_onnx: dump is empty, expected a folder or None")
    options = request_text(
        opset=_one_of({"opset": opset, "opset_version": opset_version}, 21),
        activation_storage=activation_storage,
        weights=weights,
        weight_storage=weight_storage,
        external_data=external_data,
        input_names=list(input_names or ()),
        output_names=list(output_names or ()),
        dynamic_axes=_dynamic(dynamic_axes or {}),
        cast_f64=cast_f64,
        dump="" if dump is None else os.fspath(dump),
    )
    with tempfile.TemporaryDirectory(prefix="qcdq_") as folder:
        file = _save(model, inputs, folder)
        if file.endswith(".pt2"):  # takes its tensors flattened, and needs none
            leaves = torch.utils._pytree.tree_leaves(inputs)
            inputs = tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
        report = torch.ops.qcdq_onnx.export_file(file, inputs, target, options)
    return ExportReport(path=str(pathlib.Path(target)), **json.loads(report))
