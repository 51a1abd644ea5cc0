#!/usr/bin/env python3
"""Writes a benchmark report from the raw files of a run, and prints the headline table.

    bench/report.py --raw DIR --out DIR [--command TEXT] [--note TEXT ...]

Reads DIR/SUITE.json as Google Benchmark writes them; leaves report.json, report.md and report.html
(one file: plots are inline SVG, nothing is fetched). `./dev bench` calls it.
"""

import argparse
import datetime
import html
import json
import os
import pathlib
import platform
import sys

import headline
import report_plots
import rows as r

SUITES = ("kernels", "ops", "export", "qat_step", "ort_latency", "peers", "gpu")
CSS = """
:root { --ink: #1c2430; --soft: #5b6675; --line: #d7dce3; --page: #ffffff; --panel: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --soft: #9aa5b4; --line: #38414d; --page: #14181d; --panel: #1c2229; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 1360px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-size: .88rem; }
th, td { padding: .28rem .7rem; border-bottom: 1px solid var(--line); text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.reached { color: #2b8a3e; font-weight: 600; } .missed { color: #c92a2a; font-weight: 600; }
.soft, .soft td { color: var(--soft); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(520px, 1fr)); gap: 1.2rem; }
svg { width: 100%; background: var(--panel); border-radius: 8px; font: 11px system-ui, sans-serif; }
svg text { fill: var(--ink); } svg .title { font-size: 14px; font-weight: 600; }
svg .small { font-size: 10px; fill: var(--soft); } .grid { stroke: var(--line); }
.reference { stroke: var(--soft); stroke-dasharray: 3 3; }
.roof { stroke: var(--soft); stroke-width: 1.3; }
details > summary { cursor: pointer; margin: .8rem 0; }
"""


def cpu_flags():
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "unknown", set()
    lines = [x.split(":", 1) for x in text.splitlines() if ":" in x]
    found = {k.strip(): v.strip() for k, v in reversed(lines)}
    return found.get("model name", "unknown"), set(found.get("flags", "").split())


def isa_of(flags):
    for flag, name in (
        ("amx_tile", "AMX"),
        ("avx512_vnni", "AVX-512 VNNI"),
        ("avx512f", "AVX-512"),
        ("avx2", "AVX2"),
        ("sse4_1", "SSE4"),
    ):
        if flag in flags:
            return name
    return platform.machine()


def read_run(folder, command, notes):
    """{"meta": ..., "rows": ...} of a folder of raw files."""
    rows, contexts, missing = [], {}, []
    for suite in SUITES:
        path = pathlib.Path(folder) / f"{suite}.json"
        if not path.is_file():
            missing.append(suite)
            continue
        context, found = r.read_raw(path)
        rows += found
        contexts.update({k: v for k, v in context.items() if isinstance(v, str)})
    if not rows:
        raise ValueError(f"--raw {folder}: no file of a suite there ({', '.join(SUITES)})")
    cpu, flags = cpu_flags()
    meta = {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "cpu_isa": isa_of(flags),
        "kernels_isa": contexts.get("isa", "unknown"),
        "torch": contexts.get("torch", "unknown"),
        "onnxruntime": contexts.get("onnxruntime", "not measured"),
        "gpu": contexts.get("gpu", "not measured"),
        "command": command,
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "avx512": "avx512f" in flags,
        "virtual_machine": "hypervisor" in flags,
        "load_average": round(os.getloadavg()[0], 2),
        "missing_suites": missing,
        "notes": notes,
    }
    return {"meta": meta, "rows": rows}


def meta_lines(meta):
    """What a reader needs to know about the machine and the run."""
    shared = ", a virtual machine" if meta["virtual_machine"] else ""
    lines = [
        ("CPU", f"{meta['cpu']}, {meta['cores']} cores, {meta['cpu_isa']}{shared}"),
        ("kernels", f"{meta['kernels_isa']}"),
        ("torch", meta["torch"]),
        ("ONNX Runtime", meta["onnxruntime"]),
        ("GPU", meta["gpu"]),
        ("command", meta["command"]),
        ("date", meta["date"]),
        ("load average at the end", str(meta["load_average"])),
    ]
    lines = [x for x in lines if x[1] not in ("unknown", "not measured")]  # "not run" names them
    if meta["missing_suites"]:
        lines.append(("not run", ", ".join(meta["missing_suites"])))
    return lines + [("note", note) for note in meta["notes"]]


def columns(row):
    if "error" in row:
        return [r.key(row), "", "", "", "", f"refused: {row['error']}"]
    spread = (
        f"{row['low_ns'] / row['median_ns'] - 1:+.0%} {row['high_ns'] / row['median_ns'] - 1:+.0%}"
    )
    return [
        r.key(row),
        r.show_time(row["median_ns"]),
        spread,
        f"{row['ratio']:.2f}" if "ratio" in row else "",
        r.show_bandwidth(row["bytes_per_second"]) if row.get("bytes_per_second") else "",
        f"{row['items_per_second'] / 1e6:.4g} M/s" if row.get("items_per_second") else "",
    ]


HEADINGS = ["row", "median", "quartiles", "ratio to ruler", "bytes/s", "items/s"]


def as_html(report, lines):
    meta, rows = report["meta"], report["rows"]
    escape = html.escape
    head = "".join(
        f"<tr><td class=soft>{escape(k)}</td><td>{escape(str(v))}</td></tr>"
        for k, v in meta_lines(meta)
    )
    promise = "".join(
        f"<tr><td>{escape(x['what'])}</td><td>{escape(x['target'])}</td>"
        f"<td class=number>{escape(x['value'] or '-')}</td>"
        f"<td class={headline.verdict(x).split(' ')[0].lower() or 'soft'}>"
        f"{headline.verdict(x)}</td>"
        f"<td class=soft>{escape(x['where'])}</td></tr>"
        for x in lines
    )
    drawn = report_plots.drawn(rows)
    tables = []
    for suite in SUITES:
        found = [x for x in rows if x["suite"] == suite]
        if found:
            cells = "".join(
                "<tr><td>"
                + "</td><td class=number>".join(escape(c) for c in columns(x))
                + "</td></tr>"
                for x in found
            )
            tables.append(
                f"<details><summary>{suite}: {len(found)} rows</summary><table><tr><th>"
                + "</th><th>".join(HEADINGS)
                + f"</th></tr>{cells}</table></details>"
            )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>qcdq benchmarks</title>'
        f'<meta name="viewport" content="width=device-width"><style>{CSS}</style>'
        f"<h1>qcdq benchmarks</h1><table>{head}</table>"
        f"<h2>What was promised and what was measured</h2><table><tr><th>row</th><th>promise</th>"
        f"<th>measured</th><th></th><th>at</th></tr>{promise}</table>"
        f"<h2>Plots</h2><p class=soft>Medians. A ratio compares samples taken in turn with its "
        f"ruler: x.clone() for ops, memcpy into a warm buffer for kernels, the float model for "
        f"models. Point at a mark for its numbers.</p>"
        f"<div class=plots>{''.join(f'<div>{p}</div>' for p in drawn)}</div>"
        f"<h2>All rows</h2>{''.join(tables)}</html>\n"
    )


def as_markdown(report, lines):
    out = ["# qcdq benchmarks", ""]
    out += [f"- {k}: {v}" for k, v in meta_lines(report["meta"])]
    out += ["", "## What was promised and what was measured", "", headline.as_markdown(lines)]
    for suite in SUITES:
        found = [columns(x) for x in report["rows"] if x["suite"] == suite]
        if found:
            out += [
                "",
                f"## {suite}",
                "",
                "| " + " | ".join(HEADINGS) + " |",
                "|---" * len(HEADINGS) + "|",
            ]
            out += ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in found]
    return "\n".join(out) + "\n"


def write(report, folder):
    """Writes the three files; returns the headline's lines."""
    lines = headline.table(report["rows"], report["meta"]["avx512"])
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = {**report, "headline": [{**x, "verdict": headline.verdict(x)} for x in lines]}
    (folder / "report.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
    (folder / "report.md").write_text(as_markdown(report, lines), encoding="utf-8")
    (folder / "report.html").write_text(as_html(report, lines), encoding="utf-8")
    return lines


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="report.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--raw", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--command", default="(not given)")
    parser.add_argument("--note", action="append", default=[])
    options = parser.parse_args(arguments)
    try:
        report = read_run(options.raw, options.command, options.note)
    except (OSError, ValueError, KeyError) as error:
        print(f"report.py: {error}", file=sys.stderr)
        return 1
    print(headline.as_text(write(report, options.out)))
    for row in report["rows"]:
        if "error" in row:
            print(f"not measured: {r.key(row)}: {row['error']}")
    print(f"report: {options.out}/report.html, report.md, report.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
