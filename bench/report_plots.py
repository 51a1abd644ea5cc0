"""The plots of a report: which rows of a run each shows. report.py puts them on its page; plots.py
draws lines, bars and the roofline."""

import plots
import rows as r


def by_size(rows, value, **wanted):
    """{impl: [(bytes, value, tooltip)]} for a plot over sizes."""
    series = {}
    for row in r.select(rows, **wanted):
        place = r.size_bytes(row["size"]) or (row["elements"] * 4 if row["size"] == "64" else None)
        if place and value in row:
            time = r.show_time(row["median_ns"])
            tooltip = f"{row['impl']}, {row['size']}: {time}, {row['ratio']:.2f}x the ruler"
            series.setdefault(row["impl"], []).append((place, row[value], tooltip))
    return series


def size_plots(rows):
    out = []
    for op, pass_, name in (
        ("fake_quantize", "fwd", "fake_quantize, forward"),
        ("fake_quantize", "fwd_bwd", "fake_quantize, forward + backward (STE)"),
        ("fake_quantize_learned", "fwd_bwd", "fake_quantize_learned, forward + backward"),
    ):
        wanted = dict(
            suite="ops", op=op, pass_=pass_, granularity="per_tensor", type="f32", threads=1
        )
        out.append(
            plots.lines(
                f"{name}: time of a call",
                "size of x (f32, 1 thread)",
                "time",
                by_size(rows, "median_ns", **wanted),
                y_name=plots.duration,
            )
        )
        out.append(
            plots.lines(
                f"{name}: ratio to x.clone()",
                "size of x (f32, 1 thread)",
                "times a copy",
                by_size(rows, "ratio", **wanted),
                reference=1.0,
            )
        )
    wanted = dict(
        suite="kernels", op="fake_quantize", pass_="fwd", granularity="per_tensor", type="f32"
    )
    out.append(
        plots.lines(
            "Kernel on warm buffers, each ISA: bytes/s",
            "size of x (f32, 1 thread)",
            "bytes/s",
            by_size(rows, "bytes_per_second", **wanted),
        )
    )
    return out


def granularity_plot(rows):
    entries = []
    wanted = dict(suite="ops", op="fake_quantize", pass_="fwd", size="4MiB", impl="ours", threads=1)
    for row in r.select(rows, **wanted):
        entries.append(
            (f"ours {row['type']} {row['granularity']}", row["ratio"], f"{row['ratio']:.2f}x")
        )
    return plots.bars("fake_quantize forward, 4 MiB: ratio to x.clone()", "times a copy", entries)


LEVELS = {"L1": "16KiB", "L2": "256KiB", "L3": "4MiB", "memory": "64MiB"}


def roofline_plot(rows):
    """Roofs: memcpy at a size of each cache level. Ceilings: the loops in registers."""
    copies = {
        x["size"]: x
        for x in r.select(
            rows,
            suite="kernels",
            impl="memcpy",
            op="fake_quantize",
            pass_="fwd",
            granularity="per_tensor",
            type="f32",
        )
    }
    roofs = {
        level: copies[size]["bytes_per_second"] for level, size in LEVELS.items() if size in copies
    }
    rates = {
        x["pass"]: x["operations"] / x["median_ns"] * 1e9
        for x in r.select(rows, suite="kernels", op="peak")
        if "operations" in x
    }
    peaks = {}
    if "multiply_add" in rates:
        peaks["multiply and add"] = rates["multiply_add"]
    if "divide" in rates:
        # fake_quantize is seven operations, one of them a true division.
        peaks["one division in seven operations"] = 7 * rates["divide"]
    isas = [
        x["impl"]
        for x in r.select(rows, suite="kernels", op="fake_quantize")
        if x["impl"] != "memcpy"
    ]
    points = {}
    for row in r.select(
        rows, suite="kernels", granularity="per_tensor", type="f32", impl=isas[0] if isas else ""
    ):
        if row.get("traffic_bytes"):
            rate = row["operations"] / row["median_ns"] * 1e9
            points.setdefault(f"{row['op']} {row['pass']}", []).append(
                (
                    row["operations"] / row["traffic_bytes"],
                    rate,
                    f"{row['op']} {row['pass']}, {row['size']}: {rate / 1e9:.1f} G operations/s",
                )
            )
    return plots.roofline("Roofline of the kernels (f32, 1 thread)", points, roofs, peaks)


def model_plots(rows):
    out = []
    step = r.select(rows, suite="qat_step", threads=1)
    out.append(
        plots.bars(
            "ResNet-18 training step, 8x3x112x112: time",
            "times the fp32 step (1 thread)",
            [
                (x["impl"], x["ratio"], f"{x['ratio']:.2f}x  {r.show_time(x['median_ns'])}")
                for x in step
            ],
        )
    )
    base = [x["peak_bytes"] for x in step if x["impl"] == "fp32" and "peak_bytes" in x]
    if base:
        out.append(
            plots.bars(
                "ResNet-18 training step: peak memory of tensors",
                "times the fp32 step",
                [
                    (
                        x["impl"],
                        x["peak_bytes"] / base[0],
                        f"{x['peak_bytes'] / base[0]:.2f}x  {x['peak_bytes'] / r.MIB:.0f} MiB",
                    )
                    for x in step
                    if "peak_bytes" in x
                ],
            )
        )
    peers = r.select(rows, suite="peers")
    out.append(
        plots.bars(
            "Python peers: ResNet-18 training step",
            "times the fp32 step in Python",
            [
                (x["impl"], x["ratio"], f"{x['ratio']:.2f}x  {r.show_time(x['median_ns'])}")
                for x in peers
            ],
        )
    )
    latency = r.select(rows, suite="ort_latency", threads=1)
    out.append(
        plots.bars(
            "ONNX Runtime, ResNet-18 1x3x224x224: latency",
            "times the fp32 model (1 thread)",
            [
                (x["impl"], x["ratio"], f"{x['ratio']:.2f}x  {r.show_time(x['median_ns'])}")
                for x in latency
            ],
        )
    )
    return out


GPU_OPS = (
    ("fake_quantize", "fwd"),
    ("fake_quantize", "fwd_bwd"),
    ("fake_quantize_learned", "fwd_bwd"),
    ("choose_qparams", "fwd"),
    ("quantize", "fwd"),
    ("dequantize", "fwd"),
)


def gpu_plots(rows):
    wanted = dict(
        suite="gpu", op="fake_quantize", pass_="fwd", granularity="per_tensor", type="f32"
    )
    out = [
        plots.lines(
            "GPU fake_quantize, forward: time of a call",
            "size of x (f32)",
            "time",
            by_size(rows, "median_ns", **wanted),
            y_name=plots.duration,
        )
    ]
    for op, pass_ in GPU_OPS:
        entries = [
            (
                f"{x['impl'].split('_')[0]} {x['type']} {x['granularity']}",
                x["ratio"],
                f"{x['ratio']:.2f}x  {r.show_time(x['median_ns'])}",
            )
            for x in r.select(rows, suite="gpu", op=op, pass_=pass_, size="64MiB")
            if "ratio" in x and x["impl"].startswith(("ours", "aten"))
        ]
        out.append(
            plots.bars(f"GPU {op} {pass_}, 64 MiB: ratio to x.clone()", "times a copy", entries)
        )
    return out


def drawn(rows):
    """The SVG of each plot that these rows have anything for."""
    every = [
        *size_plots(rows),
        granularity_plot(rows),
        roofline_plot(rows),
        *model_plots(rows),
        *gpu_plots(rows),
    ]
    return [plot for plot in every if plot]
