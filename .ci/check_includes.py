#!/usr/bin/env python3
"""Checks who may include whom (docs/HACKING.md), and a few rules of the project. Exits 1 and lists each breach."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')
JIT = re.compile(r"^torch/csrc/jit/")

# The rooms of the exporter that see torch::jit. A later torch without torch::jit costs these alone.
JIT_IN_SYMBOLIC = re.compile(r"^symbolic/(source|program|lower|record|convert)/|^symbolic/verify/verify\.cpp$")
# These see tensors and modules through torch's public headers only.
TENSORS_IN_SYMBOLIC = re.compile(
    r"^symbolic/(export|python_ops|ort/(model|tensors)|verify/(verifier|compare_outputs))\.(cpp|h)$")


def is_torch(header):
    return header.startswith(("torch/", "ATen/", "c10/", "caffe2/"))


def is_onnx(header):
    return header.startswith(("onnx/", "google/protobuf/"))


def breaches(path, header):
    """Yields one sentence per arrow of the architecture that `path` including `header` breaks."""
    if path.startswith("include/"):
        if is_onnx(header):
            yield "public headers must not show onnx or protobuf"
        if path == "include/qcdq/affine.h" or path == "include/qcdq/symbolic.h":
            if is_torch(header):
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
    if path.startswith("symbolic/"):
        if header.startswith(("torch_plugin/", "cli/")) or header in ("qcdq/ops.h", "qcdq/modules.h", "qcdq/observers.h"):
            yield "symbolic never includes torch_plugin or cli: they meet in op names and affine.h"
        if JIT.match(header) and not JIT_IN_SYMBOLIC.match(path):
            yield "torch::jit stays in program, lower, record, source, convert and verify"
        elif is_torch(header) and not (JIT_IN_SYMBOLIC.match(path) or TENSORS_IN_SYMBOLIC.match(path)):
            yield "this part of the exporter is torch-free"
    if path.startswith("cli/") and (header.startswith(("torch_plugin/", "symbolic/")) or is_onnx(header)):
        yield "cli uses public headers only"


def main():
    names = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
                           capture_output=True, text=True).stdout.split()
    found = []
    for name in names:
        path = ROOT / name
        if not name.endswith((".h", ".cpp", ".cu")) or not path.is_file():
            continue
        headers = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = INCLUDE.match(line)
            if match:
                headers.append(match[1])
                found += [f"{name}:{number}: includes {match[1]}: {why}" for why in breaches(name, match[1])]
            if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line):
                found.append(f"{name}:{number}: left-over mark")
        # Some libtorch (2.11) ship old protobuf headers, which are then found before onnx's own.
        if any(map(is_torch, headers)) and any(map(is_onnx, headers)):
            found.append(f"{name}: no file includes both torch and onnx")
    print("\n".join(found) if found else f"includes: {len(names)} files, no breach")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
