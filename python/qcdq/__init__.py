"""qcdq: quantised ops and layers for torch, and their export to ONNX as QCDQ.

Importing the package loads the ops (torch.ops.qcdq.*). Layers: qcdq.nn; quantisers: qcdq.int8(),
qcdq.uint4(), ...; export: qcdq.export_onnx, or torch.onnx with qcdq.register_onnx() (dynamo=False)
and qcdq.translation_table() (dynamo=True).
"""

from qcdq import _libraries

_libraries.load()

from qcdq import nn
from qcdq.archive import load_cpp_archive, save_cpp_archive
from qcdq.export import ExportReport, export_onnx
from qcdq.onnx_hooks import register_onnx, translation_table
from qcdq.ops import (
    choose_qparams,
    dequantize,
    fake_quantize,
    fake_quantize_dynamic,
    fake_quantize_learned,
    quantize,
)
from qcdq.spec import (
    Granularity,
    QuantSpec,
    Scaling,
    int2,
    int3,
    int4,
    int8,
    int16,
    int32,
    intn,
    uint1,
    uint2,
    uint3,
    uint4,
    uint8,
    uint16,
    uintn,
)

__version__ = "0.1.0"

__all__ = [
    "ExportReport",
    "Granularity",
    "QuantSpec",
    "Scaling",
    "choose_qparams",
    "dequantize",
    "export_onnx",
    "fake_quantize",
    "fake_quantize_dynamic",
    "fake_quantize_learned",
    "int2",
    "int3",
    "int4",
    "int8",
    "int16",
    "int32",
    "intn",
    "load_cpp_archive",
    "nn",
    "quantize",
    "register_onnx",
    "save_cpp_archive",
    "translation_table",
    "uint1",
    "uint2",
    "uint3",
    "uint4",
    "uint8",
    "uint16",
    "uintn",
]
