# Shared by every Python test: the --all option, the built program and the built libraries.
# QCDQ_BIN, QCDQ_OPS_LIBRARY and QCDQ_WRITE_PROGRAMS override the paths that ./dev build leaves.
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


def built(variable, *names):
    """The path in the environment variable, or the first of build/NAME, build/release/NAME."""
    if variable in os.environ:
        return pathlib.Path(os.environ[variable]).resolve()
    for folder in ("build", "build/release"):
        path = ROOT / folder / pathlib.Path(*names)
        if path.exists():
            return path
    raise FileNotFoundError(f"{'/'.join(names)} is not built: run ./dev build, or set {variable}")


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="run the slow sweeps too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--all"):
        return
    skip = pytest.mark.skip(reason="slow: run with --all")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


class Program:
    """Runs `qcdq` and keeps what a test asks about: exit code, stdout, stderr."""

    def __init__(self, path):
        self.path = str(path)

    def __call__(self, *arguments, environment=None, **keywords):
        return subprocess.run(
            [self.path, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=600,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            **keywords,
        )


@pytest.fixture(scope="session")
def qcdq():
    return Program(built("QCDQ_BIN", "bin", "qcdq"))


@pytest.fixture(scope="session")
def write_programs():
    return built("QCDQ_WRITE_PROGRAMS", "bin", "write_programs")


@pytest.fixture(scope="session")
def ops_library():
    return built("QCDQ_OPS_LIBRARY", "lib", "libqcdq_ops.so")
