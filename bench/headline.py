"""The headline table: each promise of the project beside what this run measured.

A promise is a median, on one thread unless it says otherwise, and where several sizes were measured
the worst of them. All ratios come from rows that were measured in turn with each other.
"""

import rows as r

AT_LEAST_4_MIB = 4 * r.MIB


def large(rows, **wanted):
    """The selected rows of at least 4 MiB, on one thread unless said otherwise."""
    wanted.setdefault("threads", 1)
    return [
        x
        for x in r.select(rows, suite="ops", **wanted)
        if (r.size_bytes(x["size"]) or 0) >= AT_LEAST_4_MIB
    ]


def sizes_of(found):
    return ", ".join(dict.fromkeys(x["size"] for x in found))


def line(what, target, value, ok, where):
    """value None: not measured in this run."""
    return {"what": what, "target": target, "value": value, "ok": ok, "where": where}


def to_copy(rows, what, limit, **wanted):
    found = large(rows, impl="ours", **wanted)
    if not found:
        return line(what, f"<= {limit:g}x of a copy", None, None, "")
    worst = max(found, key=lambda x: x["ratio"])
    value = f"{worst['ratio']:.2f}x"
    # What the caches of this machine make of the same reads and writes; the promise stays as it is.
    traffic = r.same_group(rows, worst, "traffic")
    if traffic:
        value += f" (its traffic alone {traffic['ratio']:.2f}x)"
    return line(what, f"<= {limit:g}x of a copy", value, worst["ratio"] <= limit, sizes_of(found))


def speedups(rows, what, least, other, sizes, **wanted):
    """How many times faster ours is than `other`: a line for each size, since caches and memory
    limit each in another way."""
    lines = []
    for size in sizes:
        name = f"{what}, {size}"
        found = r.select(rows, suite="ops", impl="ours", size=size, threads=1, **wanted)
        reference = r.same_group(rows, found[0], other) if found else None
        if not reference:
            lines.append(line(name, f">= {least:g}x", None, None, ""))
            continue
        value = reference["median_ns"] / found[0]["median_ns"]
        lines.append(line(name, f">= {least:g}x", f"{value:.1f}x", value >= least, size))
    return lines


def small_call(rows, what, pass_):
    ours = r.select(
        rows,
        suite="ops",
        op="fake_quantize",
        pass_=pass_,
        size="64",
        impl="ours",
        granularity="per_tensor",
        type="f32",
        threads=1,
    )
    other = r.same_group(rows, ours[0], "aten_tensor_qparams") if ours else None
    if not other:
        return line(what, "<= aten's tensor_qparams", None, None, "")
    value = f"{r.show_time(ours[0]['median_ns'])} against {r.show_time(other['median_ns'])}"
    return line(what, "<= aten's tensor_qparams", value, ours[0]["ratio"] <= other["ratio"], "64")


def two_threads(rows):
    what, target = "2 threads, fake_quantize f32", ">= 1.6x one thread, or the copy's own scaling"
    fields = dict(
        suite="ops",
        op="fake_quantize",
        pass_="fwd",
        granularity="per_tensor",
        type="f32",
        size="64MiB",
    )

    def scaling(impl):
        one = r.select(rows, threads=1, impl=impl, **fields)
        two = r.select(rows, threads=2, impl=impl, **fields)
        return one[0]["median_ns"] / two[0]["median_ns"] if one and two else None

    ours, copy = scaling("ours"), scaling("copy")
    if ours is None or copy is None:
        return line(what, target, None, None, "")
    # 3 % is what the two scalings differ by from run to run.
    return line(
        what, target, f"{ours:.2f}x (copy {copy:.2f}x)", ours >= 1.6 or ours >= 0.97 * copy, "64MiB"
    )


def qat(rows):
    """The training step, of fixed and learned scales and the layers' quantisers, and its memory."""
    lines = []
    kinds = (
        ("ours", "ResNet-18 QAT step", 1.2),
        ("ours_learned", "the same, learned scales", None),
        ("ours_layers", "the same, qcdq::Quantizer", None),
    )
    for impl, name, limit in kinds:
        found = r.select(rows, suite="qat_step", impl=impl, threads=1)
        target = f"<= {limit}x the fp32 step" if limit else "(no promise)"
        if not found:
            lines.append(line(name, target, None, None, ""))
            continue
        row = found[0]
        others = []
        for other, label in (
            ("aten", "aten"),
            ("torch_ao", "torch.ao"),
            ("aten_learnable", "aten learned"),
        ):
            reference = r.same_group(rows, row, other)
            if reference:
                others.append(f"{label} {reference['ratio']:.2f}x")
        value = f"{row['ratio']:.2f}x"
        lines.append(
            line(
                name,
                target,
                value,
                row["ratio"] <= limit if limit else None,
                row["size"] + (f"; {', '.join(others)}" if others else ""),
            )
        )
    for impl, name, limit in kinds:
        what = f"{name}, memory"
        target = "<= 1.15x the fp32 step's" if limit else "(no promise)"
        found = r.select(rows, suite="qat_step", impl=impl, threads=1)
        base = r.same_group(rows, found[0], "fp32") if found else None
        if not base or "peak_bytes" not in base:
            lines.append(line(what, target, None, None, ""))
            continue
        ratio = found[0]["peak_bytes"] / base["peak_bytes"]
        lines.append(
            line(what, target, f"{ratio:.2f}x", ratio <= 1.15 if limit else None, "peak of tensors")
        )
    return lines


PER_CHANNEL = ("channel_0", "channel_1", "channel_last")


def gpu_large(rows, granularities, **wanted):
    """Ours on a GPU, at 64 MiB and more."""
    return [
        x
        for granularity in granularities
        for x in r.select(rows, suite="gpu", impl="ours", granularity=granularity, **wanted)
        if (r.size_bytes(x["size"]) or 0) >= 64 * r.MIB
    ]


def gpu_share(rows, name, granularities, type_):
    what, target = f"GPU fake_quantize {type_} {name}", ">= 85 % of the copy's bandwidth"
    found = gpu_large(rows, granularities, op="fake_quantize", pass_="fwd", type=type_)
    if not found:
        return line(what, target, None, None, "")
    share = min(1 / x["ratio"] for x in found)
    return line(what, target, f"{share:.0%}", share >= 0.85, sizes_of(found))


def gpu_speedup(rows, what, least, other, granularities, **wanted):
    """How many times faster ours is than `other`, where it is the least; no promise: least None."""
    target = f">= {least:g}x" if least else "(no promise)"
    found = [
        (reference["ratio"] / x["ratio"], x)
        for x in gpu_large(rows, granularities, **wanted)
        if (reference := r.same_group(rows, x, other))
    ]
    if not found:
        return line(what, target, None, None, "")
    value = min(x[0] for x in found)
    return line(
        what,
        target,
        f"{value:.2f}x",
        value >= least if least else None,
        sizes_of([x[1] for x in found]),
    )


def gpu(rows):
    lines = []
    for type_ in ("f32", "f16", "bf16"):
        for name, granularities in (
            ("per tensor", ("per_tensor",)),
            ("per channel", PER_CHANNEL),
            ("blocked by 32", ("blocked",)),
        ):
            lines.append(gpu_share(rows, name, granularities, type_))
    per_tensor = ("per_tensor",)
    fwd = dict(op="fake_quantize", pass_="fwd", type="f32")
    fwd_bwd = dict(op="fake_quantize", pass_="fwd_bwd")
    learned = dict(op="fake_quantize_learned", pass_="fwd_bwd")
    qparams = dict(op="choose_qparams", pass_="fwd")
    for what, least, other, granularities, wanted in (
        ("fake_quantize f32 against aten", 2, "aten", per_tensor, fwd),
        ("fake_quantize f32 per channel against aten", 2, "aten", PER_CHANNEL, fwd),
        ("fake_quantize fwd+bwd (STE) against aten", None, "aten", per_tensor, fwd_bwd),
        ("fake_quantize_learned fwd+bwd against aten", None, "aten_learnable", per_tensor, learned),
        (
            "fake_quantize_learned per channel against aten",
            None,
            "aten_learnable",
            PER_CHANNEL,
            learned,
        ),
        ("choose_qparams against aten's aminmax", None, "aten_aminmax", per_tensor, qparams),
    ):
        lines.append(gpu_speedup(rows, f"GPU {what}", least, other, granularities, **wanted))
    return lines


def table(rows, has_avx512):
    """The lines of the headline table, in the order of the promises; a run on a GPU has its own."""
    if rows and all(x["suite"] == "gpu" for x in rows):
        return gpu(rows)
    fwd = dict(op="fake_quantize", pass_="fwd")
    f32 = dict(granularity="per_tensor", type="f32")
    both = dict(pass_="fwd_bwd", **f32)
    learned = dict(op="fake_quantize_learned", **both)
    qparams = dict(op="choose_qparams", pass_="fwd", **f32)
    sizes = ("256KiB", "4MiB", "64MiB")
    times = 8 if has_avx512 else 15
    lines = [to_copy(rows, "fake_quantize f32 per tensor", 1.15, **fwd, **f32)]
    for granularity, name in (
        ("channel_0", "per channel, axis 0"),
        ("channel_1", "per channel, axis 1"),
        ("channel_last", "per channel, last axis"),
        ("blocked", "blocked by 32"),
    ):
        wanted = dict(granularity=granularity, type="f32", **fwd)
        lines.append(to_copy(rows, f"fake_quantize f32 {name}", 1.25, **wanted))
    for type_ in ("f16", "bf16"):
        wanted = dict(granularity="per_tensor", type=type_, **fwd)
        lines.append(to_copy(rows, f"fake_quantize {type_} per tensor", 1.3, **wanted))
    lines += speedups(rows, "fake_quantize f32 against aten", times, "aten", sizes, **fwd, **f32)
    lines.append(small_call(rows, "a call on 64 elements", "fwd"))
    lines.append(small_call(rows, "the same, x requires grad", "fwd_grad"))
    lines.append(to_copy(rows, "fake_quantize fwd+bwd (STE)", 2.5, op="fake_quantize", **both))
    lines.append(to_copy(rows, "fake_quantize_learned fwd+bwd", 3.5, **learned))
    what = "fake_quantize_learned against aten"
    lines += speedups(rows, what, 15, "aten_learnable", sizes[:2], **learned)
    lines.append(to_copy(rows, "choose_qparams", 0.7, **qparams))
    lines.append(two_threads(rows))
    lines += qat(rows)
    # `./dev bench` never measures a GPU: one line says so.
    return lines + [line("GPU", "bench/gpu.sh", None, None, "")]


def verdict(entry):
    if entry["value"] is None:
        return "not measured"
    return {True: "reached", False: "MISSED", None: ""}[entry["ok"]]


def as_text(lines):
    """The table for a terminal."""
    cells = [("row", "promise", "measured", "", "at")]
    cells += [(x["what"], x["target"], x["value"] or "-", verdict(x), x["where"]) for x in lines]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=False)) + "  " + row[4]
        for row in cells
    )


def as_markdown(lines):
    out = ["| row | promise | measured | | at |", "|---|---|---|---|---|"]
    out += [
        f"| {x['what']} | {x['target']} | {x['value'] or '-'} | {verdict(x)} | {x['where']} |"
        for x in lines
    ]
    return "\n".join(out)
