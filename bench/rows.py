"""Rows of a benchmark run: read from Google Benchmark's JSON, found by their fields.

Used by report.py, headline.py, report_plots.py, plots.py and compare.py. Plain Python, no packages.
"""

import json
import pathlib

FIELDS = ("suite", "op", "pass", "granularity", "type", "size", "threads", "impl")
UNITS = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}
KIB, MIB = 1024, 1024 * 1024


def parse_name(name):
    """The fields of "op/pass/granularity/type/size/t1/impl/iterations:1/manual_time"."""
    parts = [p for p in name.split("/") if not p.startswith("iterations:") and p != "manual_time"]
    if len(parts) != 7 or not parts[5].startswith("t"):
        raise ValueError(f"{name!r}: a row is named op/pass/granularity/type/size/tTHREADS/impl")
    op, pass_, granularity, type_, size, threads, impl = parts
    return {
        "op": op,
        "pass": pass_,
        "granularity": granularity,
        "type": type_,
        "size": size,
        "threads": int(threads[1:]),
        "impl": impl,
    }


def row_of(suite, entry):
    """A row from one entry of Google Benchmark's "benchmarks" list."""
    row = {"suite": suite, **parse_name(entry["name"])}
    if entry.get("error_occurred"):
        row["error"] = entry.get("error_message", "failed")
        return row
    median = entry["real_time"] * UNITS[entry["time_unit"]]
    row.update(
        median_ns=median, low_ns=entry.get("low_ns", median), high_ns=entry.get("high_ns", median)
    )
    for name in (
        "ratio",
        "ratio_low",
        "ratio_high",
        "samples",
        "elements",
        "bytes_per_second",
        "items_per_second",
        "peak_bytes",
        "operations",
        "traffic_bytes",
    ):
        if name in entry:
            row[name] = entry[name]
    return row


def read_raw(path):
    """(context, rows) of one file of Google Benchmark; the suite is the file's name."""
    path = pathlib.Path(path)
    data = json.loads(path.read_text(encoding="utf-8"))
    suite = path.stem.split("@")[0]
    return data.get("context", {}), [row_of(suite, entry) for entry in data["benchmarks"]]


def read_report(path):
    """A report.json, or one raw file of Google Benchmark, as {"meta": ..., "rows": [...]}."""
    data = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    if "rows" in data:
        return data
    if "benchmarks" not in data:
        raise ValueError(f"{path}: neither a report.json nor a file of Google Benchmark")
    context, rows = read_raw(path)
    return {"meta": context, "rows": rows}


def key(row):
    """The name of a row, unique in a report."""
    return "/".join(f"t{row[f]}" if f == "threads" else str(row[f]) for f in FIELDS)


def select(rows, **wanted):
    """Rows without error whose fields equal `wanted`; `pass_` is pass, a tuple means any of it."""
    wanted = {name.rstrip("_"): value for name, value in wanted.items()}
    found = []
    for row in rows:
        if "error" in row:
            continue
        if all(
            row.get(f) in v if isinstance(v, tuple) else row.get(f) == v for f, v in wanted.items()
        ):
            found.append(row)
    return found


def group_of(row):
    """What rows measured in turn with each other share: every field but impl."""
    return tuple(row[f] for f in FIELDS if f != "impl")


def same_group(rows, row, impl):
    """The row of another impl that was measured in turn with `row`, or None."""
    found = [r for r in select(rows, impl=impl) if group_of(r) == group_of(row)]
    return found[0] if found else None


def size_bytes(size):
    """Bytes of "4MiB", "64KiB", "512B"; None for a bare count of elements or a shape."""
    for unit, factor in (("MiB", MIB), ("KiB", KIB), ("B", 1)):
        if size.endswith(unit) and size[: -len(unit)].isdigit():
            return int(size[: -len(unit)]) * factor
    return None


def show_time(nanoseconds):
    """Three digits and a unit."""
    for unit, factor in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= factor:
            return f"{nanoseconds / factor:.3g} {unit}"
    return f"{nanoseconds:.3g} ns"


def show_bandwidth(bytes_per_second):
    return f"{bytes_per_second / 1e9:.3g} GB/s"
