# Finds and loads libqcdq_ops.so and libqcdq_onnx.so, and says so in one sentence where they don't
# fit the torch that is installed. The ops come from them; nothing here binds to Python itself.
from __future__ import annotations

import os
import pathlib

import torch

_PACKAGE = pathlib.Path(__file__).resolve().parent


def _folders() -> list[pathlib.Path]:
    """Where the libraries may be: $QCDQ_LIBRARY_DIR, the package, a source tree's build."""
    folders = []
    if os.environ.get("QCDQ_LIBRARY_DIR"):
        folders.append(pathlib.Path(os.environ["QCDQ_LIBRARY_DIR"]))
    folders.append(_PACKAGE / "lib")
    source = _PACKAGE.parent.parent
    folders += [source / "build" / "lib", source / "build" / "release" / "lib"]
    return folders


def library_folder() -> pathlib.Path:
    """The folder that holds libqcdq_ops.so; ImportError where there is none."""
    folders = _folders()
    for folder in folders:
        if (folder / "libqcdq_ops.so").exists():
            return folder.resolve()
    raise ImportError(
        "qcdq: libqcdq_ops.so is in none of "
        + ", ".join(map(str, folders))
        + "; install the package, run ./dev build, or set QCDQ_LIBRARY_DIR"
    )


def _minor(version: str) -> str:
    return ".".join(version.split("+")[0].split(".")[:2])


def _check_torch(folder: pathlib.Path) -> None:
    """ImportError where the libraries were built against another torch than the one imported."""
    record = folder / "qcdq_torch_version.txt"
    if not record.exists():
        return
    built = record.read_text().strip()
    if _minor(built) != _minor(torch.__version__):
        raise ImportError(
            f"qcdq was built against torch {built} but torch {torch.__version__} is installed: "
            f"install torch {_minor(built)}, or build qcdq again with 'pip install "
            "--no-build-isolation .' beside the torch you have"
        )


def load() -> None:
    """Loads the ops and, where it was built, the exporter; ImportError if they don't fit."""
    folder = library_folder()
    _check_torch(folder)
    for name in ("libqcdq_ops.so", "libqcdq_onnx.so"):
        path = folder / name
        if not path.exists():
            continue
        try:
            torch.ops.load_library(str(path))
        except OSError as error:
            raise ImportError(
                f"qcdq: {path} doesn't load into torch {torch.__version__} "
                f"({error.__cause__ or error}); build qcdq again with "
                "'pip install --no-build-isolation .' beside the torch you have"
            ) from error
