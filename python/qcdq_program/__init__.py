# The console script qcdq: hands over to the C++ program of the package (docs/cli.md). A package of
# its own, because importing qcdq means importing torch, and `qcdq --help` should not take seconds.
from __future__ import annotations

import importlib.util
import os
import pathlib
import sys


def _package(name: str) -> pathlib.Path | None:
    """Folder of an installed package, without importing it."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        return None
    return pathlib.Path(found.origin).parent


def program_path() -> pathlib.Path:
    """The program, of the installed package or a source tree's build; else FileNotFoundError."""
    package = _package("qcdq")
    if package is None:
        raise FileNotFoundError("the package qcdq is not installed")
    source = package.parent.parent
    folders = [package / "bin", source / "build" / "bin", source / "build" / "release" / "bin"]
    for folder in folders:
        if (folder / "qcdq").is_file():
            return folder / "qcdq"
    raise FileNotFoundError(f"the program qcdq is in none of {', '.join(map(str, folders))}")


def _environment() -> dict[str, str]:
    """This environment; where the packages are installed, QCDQ_ORT names onnxruntime, and torch's
    libraries are found wherever torch lies."""
    environment = dict(os.environ)
    onnxruntime, torch = _package("onnxruntime"), _package("torch")
    if "QCDQ_ORT" not in environment and onnxruntime is not None:
        environment["QCDQ_ORT"] = str(onnxruntime)
    if torch is not None:
        paths = [str(torch / "lib"), environment.get("LD_LIBRARY_PATH", "")]
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, paths))
    return environment


def main() -> int:
    """Replaces this process by the program; 1 where it isn't there."""
    try:
        path = str(program_path())
    except FileNotFoundError as error:
        print(f"qcdq: {error}", file=sys.stderr)
        return 1
    os.execve(path, [path, *sys.argv[1:]], _environment())
