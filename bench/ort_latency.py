#!/usr/bin/env python3
"""Latency in ONNX Runtime of one ResNet-18: float, quantised by qcdq, quantised by ORT itself.

    .venv/bin/python bench/ort_latency.py --models DIR --out FILE.json [--quick]

DIR holds fp32.onnx and qcdq.onnx (bench_export --save DIR); ORT's quantize_static makes the third
from fp32.onnx. The three sessions run in turn, as all rows of the suite do, and the file is written
as Google Benchmark would, for report.py. The float model is the ruler.
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import sys
import tempfile
import time

import numpy
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

SHAPE = (1, 3, 224, 224)


class RandomImages(CalibrationDataReader):
    """Eight uniform images, as bench_export's network has seen."""

    def __init__(self, name):
        random = numpy.random.default_rng(0)
        self.batches = iter([{name: random.random(SHAPE, dtype=numpy.float32)} for _ in range(8)])

    def get_next(self):
        return next(self.batches, None)


def session_of(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def quantized_by_ort(fp32, folder):
    """ORT's own quantisation: QDQ, uint8 activations, int8 weights per channel."""
    session = session_of(fp32, 1)
    prepared = pathlib.Path(folder) / "prepared.onnx"
    path = pathlib.Path(folder) / "ort_static.onnx"
    quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(path),
        RandomImages(session.get_inputs()[0].name),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return path


def quartiles(values):
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def measure(paths, threads, seconds):
    """{name: (times, ratios to the first)} of the models, run in turn."""
    feeds = numpy.random.default_rng(1).random(SHAPE, dtype=numpy.float32)
    sessions = {name: session_of(path, threads) for name, path in paths.items()}
    calls = {
        name: (lambda s=s: s.run(None, {s.get_inputs()[0].name: feeds}))
        for name, s in sessions.items()
    }
    for call in calls.values():
        call()
    times = {name: [] for name in calls}
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or len(times[next(iter(times))]) < 9:
        for name, call in calls.items():
            start = time.perf_counter_ns()
            call()
            times[name].append(time.perf_counter_ns() - start)
    ruler = times[next(iter(times))]
    return {name: (t, [a / b for a, b in zip(t, ruler, strict=True)]) for name, t in times.items()}


def entry(name, threads, times, ratios):
    low, middle, high = quartiles(times)
    ratio_low, ratio, ratio_high = quartiles(ratios)
    return {
        "name": f"resnet18/latency/channel_0/f32/{'x'.join(map(str, SHAPE))}/t{threads}/{name}",
        "real_time": middle,
        "time_unit": "ns",
        "low_ns": low,
        "high_ns": high,
        "ratio": ratio,
        "ratio_low": ratio_low,
        "ratio_high": ratio_high,
        "samples": len(times),
    }


def main():
    parser = argparse.ArgumentParser(prog="ort_latency.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", required=True, type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    fp32, ours = options.models / "fp32.onnx", options.models / "qcdq.onnx"
    for path in (fp32, ours):
        if not path.is_file():
            print(
                f"ort_latency.py: --models {options.models}: no {path.name} there "
                "(bench_export --save writes it)",
                file=sys.stderr,
            )
            return 1
    benchmarks = []
    with tempfile.TemporaryDirectory() as folder:
        paths = {"fp32": fp32, "ours": ours, "ort_static": quantized_by_ort(fp32, folder)}
        every = os.cpu_count() or 1
        for threads in [1] if options.quick or every == 1 else [1, every]:
            measured = measure(paths, threads, 5.0 if options.quick else 20.0)
            benchmarks += [entry(n, threads, *measured[n]) for n in paths]
    assert all(math.isfinite(b["real_time"]) for b in benchmarks)
    context = {"onnxruntime": onnxruntime.__version__}
    options.out.write_text(json.dumps({"context": context, "benchmarks": benchmarks}, indent=1))
    for b in benchmarks:
        print(f"{b['name']:<60} {b['real_time'] / 1e6:8.2f} ms  {b['ratio']:.2f}x fp32")
    return 0


if __name__ == "__main__":
    sys.exit(main())
