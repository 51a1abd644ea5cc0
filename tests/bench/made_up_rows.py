# Raw files of benchmark suites in Google Benchmark's form, made up: nothing here measures time.
import json


def entry(name, microseconds, ratio, spread=0.02, **more):
    """One element of "benchmarks": quartiles `spread` around the median."""
    return {
        "name": f"{name}/iterations:1/manual_time",
        "real_time": microseconds,
        "time_unit": "us",
        "low_ns": microseconds * 1e3 * (1 - spread),
        "high_ns": microseconds * 1e3 * (1 + spread),
        "ratio": ratio,
        "ratio_low": ratio * (1 - spread),
        "ratio_high": ratio * (1 + spread),
        "samples": 9,
        "elements": 1048576,
        "bytes_per_second": 8e9,
        "items_per_second": 1e9,
        **more,
    }


def group(op, fields, copy_us, ratios, **more):
    """The rows of one group, the ruler first."""
    return [
        entry(f"{op}/{fields}/{impl}", copy_us * ratio, ratio, **more)
        for impl, ratio in ratios.items()
    ]


OPS = [
    *group(
        "fake_quantize",
        "fwd/per_tensor/f32/64/t1",
        0.5,
        {"copy": 1.0, "ours": 1.2, "aten": 2.0, "aten_tensor_qparams": 1.5, "composite": 9.0},
    ),
    *group(
        "fake_quantize",
        "fwd/per_tensor/f32/4MiB/t1",
        900.0,
        {"copy": 1.0, "ours": 1.1, "aten": 20.0, "aten_tensor_qparams": 20.0, "composite": 9.0},
    ),
    *group(
        "fake_quantize",
        "fwd/per_tensor/f32/64MiB/t1",
        16000.0,
        {"copy": 1.0, "ours": 1.14, "aten": 19.0, "composite": 8.0},
    ),
    *group(
        "fake_quantize",
        "fwd/per_tensor/f32/64MiB/t2",
        10000.0,
        {"copy": 1.0, "ours": 1.1, "aten": 10.0, "composite": 5.0},
    ),
    *group("fake_quantize", "fwd/channel_1/f32/4MiB/t1", 900.0, {"copy": 1.0, "ours": 1.4}),
    *group(
        "fake_quantize_learned",
        "fwd_bwd/per_tensor/f32/4MiB/t1",
        900.0,
        {"copy": 1.0, "ours": 3.0, "aten_learnable": 60.0},
    ),
]

QAT = [
    entry("resnet18/train_step/channel_0/f32/8x3x112x112/t1/fp32", 6e5, 1.0, peak_bytes=4e8),
    entry("resnet18/train_step/channel_0/f32/8x3x112x112/t1/ours", 7e5, 1.17, peak_bytes=4.4e8),
    entry("resnet18/train_step/channel_0/f32/8x3x112x112/t1/aten", 9e5, 1.5, peak_bytes=5e8),
]

KERNELS = [
    *group(
        "fake_quantize",
        "fwd/per_tensor/f32/16KiB/t1",
        0.6,
        {"memcpy": 1.0, "AVX2": 2.0},
        operations=28672.0,
        traffic_bytes=32768.0,
    ),
    *group(
        "fake_quantize",
        "fwd/per_tensor/f32/64MiB/t1",
        15000.0,
        {"memcpy": 1.0, "AVX2": 1.1},
        operations=1.17e8,
        traffic_bytes=1.34e8,
    ),
    entry("peak/multiply_add/-/f32/registers/t1/loop", 5.0, 1.0, operations=256000.0),
    entry("peak/divide/-/f32/registers/t1/loop", 20.0, 1.0, operations=128000.0),
]


def write_raw(folder, **suites):
    folder.mkdir(exist_ok=True)
    for suite, benchmarks in suites.items():
        context = {"date": "2026-01-01", "isa": "AVX2", "torch": "2.15.0"}
        (folder / f"{suite}.json").write_text(
            json.dumps({"context": context, "benchmarks": benchmarks})
        )
    return folder
