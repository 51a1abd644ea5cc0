#!/usr/bin/env python3
"""Checks who may include whom (docs/HACKING.md) and a few rules of the project.

Exits 1 and lists each breach.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')

# The rooms of the exporter, from the ground up: each includes itself and those before it.
ROOMS = (
    "graph",
    "quantizer",
    "symbolics",
    "program",
    "lower",
    "record",
    "source",
    "convert",
    "ptq",
    "qdq",
    "qop",
    "file",
    "ort",
    "verify",
    "report",
)
# No torch header at all, and no room that has one.
TORCH_FREE = {"graph", "quantizer", "symbolics", "qdq", "qop", "file", "report"}
# torch::jit too; the files beside the rooms are the exporter's faces. A later torch without
# torch::jit costs these rooms alone.
JIT = {"program", "lower", "record", "source", "convert", "ptq", "verify"}

# A type at namespace scope stands at the start of a line.
TYPE = re.compile(
    r"^(?:template <[^>]*> )?(?:struct|class|enum class|enum|union) (?:QCDQ_API )?([A-Z]\w*)"
    r"(?: final)?(?: : [^;]*)?(?: \{.*)?$"
)
TYPE_ROOTS = ("include/", "torch_plugin/", "symbolic/", "cli/")


def is_torch(header):
    return header.startswith(("torch/", "ATen/", "c10/", "caffe2/"))


def is_jit(header):
    return header.startswith("torch/csrc/jit/")


def is_onnx(header):
    return header.startswith(("onnx/", "google/protobuf/"))


def room_of(path):
    """The room of a file below symbolic/, "" for a face, None for a file elsewhere."""
    parts = path.split("/")
    if parts[0] != "symbolic":
        return None
    return parts[1] if len(parts) > 2 else ""


def breaches_of_rooms(room, header):
    """What a file of `room` ("": a face) of the exporter breaks by including `header`."""
    if header.startswith(("torch_plugin/", "cli/")) or header in (
        "qcdq/ops.h",
        "qcdq/modules.h",
        "qcdq/observers.h",
    ):
        yield "symbolic never includes torch_plugin or cli: they meet in op names and affine.h"
    if room and room not in ROOMS:
        yield f"symbolic/{room}/ is no room of the exporter (ROOMS in .ci/check_includes.py)"
        return
    if room in TORCH_FREE and is_torch(header):
        yield f"{room}/ is torch-free"
    if is_jit(header) and room and room not in JIT:
        yield f"{room}/ sees no torch::jit: it stays in {', '.join(sorted(JIT))} and the faces"
    other = room_of(header)
    if not room or other is None:
        return
    if other == "":
        yield f"{room}/ includes a face of the exporter: rooms never do"
    elif other in ROOMS and ROOMS.index(other) > ROOMS.index(room):
        yield f"{room}/ stands below {other}/: the way of the data goes one way"
    elif room in TORCH_FREE and other not in TORCH_FREE:
        yield f"{room}/ is torch-free, {other}/ is not"


def breaches(path, header):
    """Yields one sentence per arrow of the architecture that `path` including `header` breaks."""
    if path.startswith("include/"):
        if is_onnx(header):
            yield "public headers must not show onnx or protobuf"
        if path in ("include/qcdq/affine.h", "include/qcdq/symbolic.h") and is_torch(header):
            yield f"{path} is torch-free"
    if path.startswith("torch_plugin/kernels/"):
        if is_torch(header):
            yield "kernels are torch-free"
        if header.startswith("torch_plugin/") and not header.startswith("torch_plugin/kernels/"):
            yield "kernels include only affine.h and each other"
    if path.startswith("torch_plugin/"):
        if header.startswith(("symbolic/", "cli/")) or is_onnx(header):
            yield "torch_plugin never includes symbolic, cli or onnx"
        if header in ("qcdq/export.h", "qcdq/verify.h", "qcdq/symbolic.h"):
            yield "torch_plugin never includes the exporter's headers"
    room = room_of(path)
    if room is not None:
        yield from breaches_of_rooms(room, header)
    outside = header.startswith(("torch_plugin/", "symbolic/")) or is_onnx(header)
    if path.startswith("cli/") and outside:
        yield "cli uses public headers only"


def check_file(name, text, types):
    """Breaches of one source file; `types` gets the types that it defines."""
    headers = []
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            headers.append(match[1])
            for why in breaches(name, match[1]):
                yield f"{name}:{number}: includes {match[1]}: {why}"
        if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line):
            yield f"{name}:{number}: left-over mark"
        match = TYPE.match(line)
        if match and name.startswith(TYPE_ROOTS):
            types.setdefault(match[1], []).append(f"{name}:{number}")
    # Some libtorch (2.11) ship old protobuf headers, which are then found before onnx's own.
    if any(map(is_torch, headers)) and any(map(is_onnx, headers)):
        yield f"{name}: no file includes both torch and onnx"


def main():
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    found = []
    types = {}
    for name in names:
        path = ROOT / name
        if name.endswith((".h", ".cpp", ".cu")) and path.is_file():
            found += check_file(name, path.read_text(encoding="utf-8"), types)
    for name, places in sorted(types.items()):
        if len(places) > 1:
            found.append(f"{places[1]}: a second type {name} (the first: {places[0]})")
    print("\n".join(found) if found else f"includes: {len(names)} files, no breach")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
