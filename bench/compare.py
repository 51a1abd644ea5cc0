#!/usr/bin/env python3
"""What changed between two benchmark reports, beyond noise.

    bench/compare.py before.json after.json [--threshold 10] [--metric ratio|time] [--all]

Takes two bench/report/report.json, or two raw files of Google Benchmark. A row has changed when the
quartiles of its samples no longer overlap and its median moved by more than a third of the
threshold. `ratio` (the default) compares with the ruler measured in turn with the row, so that two
machines, or one machine on two days, can be compared; a ruler's own ratio is 1 and says nothing.
Exits 0 when no row became slower by more than the threshold (in per cent), 1 when one did, 2 when
the files cannot be compared.
"""

import argparse
import sys

import rows as r

METRICS = {
    "ratio": ("ratio", "ratio_low", "ratio_high"),
    "time": ("median_ns", "low_ns", "high_ns"),
}


def change_of(before, after, metric, threshold):
    """{"change": relative, "kind": same, faster, slower or regression} of one row."""
    middle, low, high = METRICS[metric]
    change = after[middle] / before[middle] - 1.0
    apart = after[low] > before[high] or after[high] < before[low]
    if not apart or abs(change) <= threshold / 3:
        kind = "same"
    elif change < 0:
        kind = "faster"
    else:
        kind = "regression" if change > threshold else "slower"
    return {"before": before[middle], "after": after[middle], "change": change, "kind": kind}


def compare(before, after, metric="ratio", threshold=0.10):
    """(changes, only_before, only_after, errors): dicts and lists by the name of a row."""
    first = {r.key(x): x for x in before["rows"]}
    second = {r.key(x): x for x in after["rows"]}
    changes, errors = {}, []
    for name in first:
        if name not in second:
            continue
        a, b = first[name], second[name]
        if "error" in b and "error" not in a:
            errors.append(f"{name}: {b['error']}")
        elif (
            "error" not in a
            and "error" not in b
            and METRICS[metric][0] in a
            and METRICS[metric][0] in b
        ):
            changes[name] = change_of(a, b, metric, threshold)
    return (
        changes,
        [n for n in first if n not in second],
        [n for n in second if n not in first],
        errors,
    )


def show(value, metric):
    return f"{value:.2f}x" if metric == "ratio" else r.show_time(value)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="compare.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument(
        "--threshold",
        type=float,
        default=10.0,
        metavar="PERCENT",
        help="slower by more than this is a regression (default 10)",
    )
    parser.add_argument("--metric", choices=list(METRICS), default="ratio")
    parser.add_argument("--all", action="store_true", help="list unchanged rows too")
    options = parser.parse_args(arguments)
    if not options.threshold > 0:
        parser.error(f"--threshold {options.threshold}: expected a percentage > 0")
    try:
        before, after = r.read_report(options.before), r.read_report(options.after)
    except (OSError, ValueError, KeyError) as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 2
    changes, gone, new, errors = compare(before, after, options.metric, options.threshold / 100)
    if not changes and not errors:
        print("compare.py: the two files have no row in common", file=sys.stderr)
        return 2
    machines = [d.get("meta", {}).get("cpu") for d in (before, after)]
    if machines[0] != machines[1]:
        print(f"note: different CPUs: {machines[0]} and {machines[1]}")
    order = {"regression": 0, "slower": 1, "faster": 2, "same": 3}
    for name, c in sorted(
        changes.items(), key=lambda x: (order[x[1]["kind"]], -abs(x[1]["change"]))
    ):
        if c["kind"] != "same" or options.all:
            print(
                f"{c['kind']:<10} {100 * c['change']:+7.1f} %  "
                f"{show(c['before'], options.metric):>9} -> {show(c['after'], options.metric):<9} "
                f"{name}"
            )
    for text in errors:
        print(f"fails now  {text}")
    counts = {kind: sum(c["kind"] == kind for c in changes.values()) for kind in order}
    print(
        f"{len(changes)} rows compared by {options.metric}: "
        + ", ".join(f"{n} {kind}" for kind, n in counts.items())
        + (f"; {len(gone)} only before" if gone else "")
        + (f"; {len(new)} only after" if new else "")
    )
    return 1 if counts["regression"] or errors else 0


if __name__ == "__main__":
    sys.exit(main())
