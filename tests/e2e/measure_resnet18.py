#!/usr/bin/env python3
# Prints what exporting ResNet-18 costs on this machine, one thread: seconds as a process, seconds
# after load, peak memory against a process that loads the model and runs it once. A measurement,
# not a test: `.venv/bin/python tests/e2e/measure_resnet18.py [--runs 5] [--model resnet18]`.
import argparse
import json
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "python"))

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
NAMES = ("resnet18", "resnet50", "mobilenet_v2", "vgg11", "squeezenet1_1")


def write_model(name, form, path):
    """Runs in a process of its own: the peak memory of a child counts its parent's at the fork, so
    the parent must not hold torch."""
    import warnings

    import torch

    import models

    warnings.simplefilter("ignore")
    models.save(models.float_model(name), path, form, torch.randn(models.IMAGE))


def run(*command):
    """Wall-clock seconds, peak resident bytes and stdout of a process."""
    with tempfile.TemporaryFile() as out:
        start = time.perf_counter()
        process = subprocess.Popen([*map(str, command)], stdout=out, env=ENVIRONMENT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{command[0]} exited {process.returncode}")
        out.seek(0)
        return seconds, usage.ru_maxrss * 1024, out.read().decode()


def built(variable, name):
    """The path in the environment variable, or build/bin/NAME, or build/release/bin/NAME."""
    root = HERE.parent.parent
    folders = (root / "build/bin", root / "build/release/bin")
    paths = [os.environ[variable]] if variable in os.environ else [f / name for f in folders]
    for path in paths:
        if pathlib.Path(path).exists():
            return path
    raise SystemExit(f"{name} is not built: run ./dev build, or set {variable}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--model", default="resnet18", choices=NAMES)
    parser.add_argument("--form", default="script", choices=["script", "trace"])
    parser.add_argument("--dynamic", action="store_true", help="with a free batch axis")
    parser.add_argument(
        "--baseline",
        help="program that loads MODEL and runs it once (default: build/bin/qcdq_load_and_run)",
    )
    arguments = parser.parse_args()
    qcdq = built("QCDQ_BIN", "qcdq")
    baseline = arguments.baseline or built("QCDQ_LOAD_AND_RUN", "qcdq_load_and_run")
    mib = 2**20
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        model = folder / "model.pt"
        writer = multiprocessing.get_context("spawn").Process(
            target=write_model, args=(arguments.model, arguments.form, model)
        )
        writer.start()
        writer.join()
        if writer.exitcode:
            raise SystemExit(f"the model was not written: exit code {writer.exitcode}")
        size = model.stat().st_size
        export = [
            qcdq,
            "export",
            model,
            "-o",
            folder / "model.onnx",
            "--input",
            "x=f32[1,3,224,224]",
            "--json",
        ]
        if arguments.dynamic:
            export += ["--dynamic", "x:0=N"]
        run(*export)  # warms the page cache
        seconds, after_load, resident = [], [], []
        for _ in range(arguments.runs):
            wall, peak, out = run(*export)
            seconds.append(wall)
            resident.append(peak)
            after_load.append(json.loads(out)["seconds"])
        loads = [run(baseline, model, "1,3,224,224")[1] for _ in range(arguments.runs)]
    allowed = statistics.median(loads) + 0.5 * size
    print(f"{arguments.model}, {arguments.form}, {size / mib:.1f} MiB, median of {arguments.runs}")
    print(f"export as a process   {statistics.median(seconds):.3f} s (limit 1.5)")
    print(f"export after load     {statistics.median(after_load):.3f} s (limit 0.5)")
    print(f"peak memory, export   {statistics.median(resident) / mib:.0f} MiB")
    print(f"load and run once     {statistics.median(loads) / mib:.0f} MiB")
    print(f"allowed               {allowed / mib:.0f} MiB (load and run once + 0.5 x the model)")


if __name__ == "__main__":
    main()
