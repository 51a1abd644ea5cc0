"""Inline SVG: lines over logarithmic axes, bars, and the roofline. No script, no outside file."""

import html
import math

WIDTH, HEIGHT = 670, 380
LEFT, RIGHT, TOP, BOTTOM = 66, 180, 34, 48
# One colour an implementation in every plot; told apart in greyscale by their dashes.
STYLES = {
    "ours": ("#0b6bcb", ""),
    "ours_learned": ("#0a8f84", ""),
    "ours_layers": ("#5b4bc4", ""),
    "copy": ("#6b7280", "5 4"),
    "memcpy": ("#6b7280", "5 4"),
    "traffic": ("#6b7280", "1 3"),
    "fp32": ("#6b7280", "5 4"),
    "aten": ("#d9480f", ""),
    "aten_tensor_qparams": ("#f08c00", "2 3"),
    "aten_learnable": ("#d9480f", "7 3"),
    "torch_ao": ("#c2255c", ""),
    "ort_static": ("#c2255c", ""),
    "brevitas": ("#862e9c", ""),
    "composite": ("#2b8a3e", "8 3 2 3"),
}
SPARE = ("#0b6bcb", "#d9480f", "#2b8a3e", "#862e9c", "#c2255c", "#0a8f84", "#f08c00", "#6b7280")


def style(name, index=0):
    return STYLES.get(name, (SPARE[index % len(SPARE)], ""))


def number(value):
    """1, 0.5, 20k: labels of axes."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= factor:
            return f"{value / factor:g}{unit}"
    return f"{value:.3g}"


def data_size(value):
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= factor:
            return f"{value / factor:g} {unit}"
    return f"{value:g} B"


def duration(value):
    for unit, factor in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if value >= factor:
            return f"{value / factor:g} {unit}"
    return f"{value:g} ns"


class Axis:
    """A logarithmic axis from `low` to `high` drawn from `start` to `end`."""

    def __init__(self, values, start, end, base=10):
        low, high = min(values), max(values)
        if low == high:
            low, high = low / 2, high * 2
        self.low, self.high, self.base = math.log(low), math.log(high), base
        margin = 0.04 * (self.high - self.low)
        self.low, self.high = self.low - margin, self.high + margin
        self.start, self.end = start, end

    def place(self, value):
        share = (math.log(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self):
        """Powers of the base; of ten also 2 and 5 times them where there are few."""
        first = math.floor(self.low / math.log(self.base))
        last = math.ceil(self.high / math.log(self.base))
        values = [self.base**e for e in range(first, last + 1)]
        inside = [v for v in values if self.low <= math.log(v) <= self.high]
        if self.base == 10 and len(inside) < 4:
            inside = [
                v * m for v in values for m in (1, 2, 5) if self.low <= math.log(v * m) <= self.high
            ]
        step = max(1, math.ceil(len(inside) / 9))
        return inside[::step]


def text(x, y, content, extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" {extra}>{html.escape(str(content))}</text>'


def frame(title, x_label, y_label, x, y, x_name, y_name):
    """Title, axes, grid."""
    out = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">',
        text(LEFT, 20, title, 'class="title"'),
    ]
    for value in x.ticks():
        place = x.place(value)
        out.append(
            f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="{TOP}" '
            f'y2="{HEIGHT - BOTTOM}"/>'
        )
        out.append(text(place, HEIGHT - BOTTOM + 16, x_name(value), 'text-anchor="middle"'))
    for value in y.ticks():
        place = y.place(value)
        out.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place:.1f}" '
            f'y2="{place:.1f}"/>'
        )
        out.append(text(LEFT - 6, place + 4, y_name(value), 'text-anchor="end"'))
    out.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_label, 'text-anchor="middle"'))
    out.append(
        text(
            -(TOP + HEIGHT - BOTTOM) / 2,
            14,
            y_label,
            'transform="rotate(-90)" text-anchor="middle"',
        )
    )
    return out


def legend(out, names):
    for index, name in enumerate(names):
        colour, dash = style(name, index)
        y = TOP + 12 + 18 * index
        x = WIDTH - RIGHT + 10
        out.append(
            f'<line x1="{x}" x2="{x + 22}" y1="{y}" y2="{y}" stroke="{colour}" '
            f'stroke-width="2.5" stroke-dasharray="{dash}"/>'
        )
        out.append(text(x + 27, y + 4, name))


def lines(title, x_label, y_label, series, y_name=number, x_name=data_size, reference=None):
    """series: {name: [(x, y, tooltip)]}. reference: a y to mark with a line across."""
    series = {name: sorted(points) for name, points in series.items() if points}
    if not series:
        return ""
    every = [p for points in series.values() for p in points]
    x = Axis([p[0] for p in every], LEFT, WIDTH - RIGHT, base=2)
    heights = [p[1] for p in every] + ([reference] if reference else [])
    y = Axis(heights, HEIGHT - BOTTOM, TOP)
    out = frame(title, x_label, y_label, x, y, x_name, y_name)
    if reference:
        place = y.place(reference)
        out.append(
            f'<line class="reference" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place:.1f}" '
            f'y2="{place:.1f}"/>'
        )
    for index, (name, points) in enumerate(series.items()):
        colour, dash = style(name, index)
        path = " ".join(f"{x.place(p[0]):.1f},{y.place(p[1]):.1f}" for p in points)
        out.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" '
            f'stroke-dasharray="{dash}"/>'
        )
        for p in points:
            out.append(
                f'<circle cx="{x.place(p[0]):.1f}" cy="{y.place(p[1]):.1f}" r="3.5" '
                f'fill="{colour}"><title>{html.escape(p[2])}</title></circle>'
            )
    legend(out, list(series))
    return "\n".join([*out, "</svg>"])


def bars(title, label, entries, reference=1.0):
    """entries: [(name, value, note)], drawn from 0, the reference marked."""
    entries = [e for e in entries if e[1] is not None]
    if not entries:
        return ""
    step, left = 30, 190
    height = TOP + step * len(entries) + 34
    most = max([e[1] for e in entries] + [reference or 0]) * 1.05
    scale = (WIDTH - left - 190) / most
    out = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(title)}">',
        text(12, 20, title, 'class="title"'),
    ]
    for index, (name, value, note) in enumerate(entries):
        y = TOP + step * index
        colour, _ = style(name.split(" ")[0], index)
        out.append(text(left - 8, y + 17, name, 'text-anchor="end"'))
        out.append(
            f'<rect x="{left}" y="{y + 4}" width="{value * scale:.1f}" height="{step - 10}" '
            f'fill="{colour}" rx="2"><title>{html.escape(note)}</title></rect>'
        )
        out.append(text(left + value * scale + 6, y + 17, note))
    if reference:
        place = left + reference * scale
        out.append(
            f'<line class="reference" x1="{place:.1f}" x2="{place:.1f}" y1="{TOP}" '
            f'y2="{height - 30}"/>'
        )
    out.append(text(left, height - 10, label))
    return "\n".join([*out, "</svg>"])


def roofline(title, points, roofs, peaks):
    """points: {name: [(operations per byte, operations per second, tooltip)]}; roofs: {level:
    bytes per second}; peaks: {name: operations per second}. All measured."""
    every = [p for group in points.values() for p in group]
    if not every or not roofs or not peaks:
        return ""
    intensities = [p[0] for p in every]
    x = Axis(
        [
            min(intensities) / 4,
            max(intensities) * 4,
            *(max(peaks.values()) / b for b in roofs.values()),
        ],
        LEFT,
        WIDTH - RIGHT,
    )
    rates = [p[1] for p in every] + list(peaks.values())
    y = Axis([min(rates) / 2, max(rates) * 1.5], HEIGHT - BOTTOM, TOP)
    out = frame(
        title, "operations per byte read or written", "operations per second", x, y, number, number
    )
    first, bottom = math.exp(x.low), math.exp(y.low)
    top = max(peaks.values())
    for index, (level, bandwidth) in enumerate(roofs.items()):
        start = max(first, bottom / bandwidth)
        end = top / bandwidth
        out.append(
            f'<line class="roof" x1="{x.place(start):.1f}" y1="{y.place(start * bandwidth):.1f}" '
            f'x2="{x.place(end):.1f}" y2="{y.place(top):.1f}"/>'
        )
        # Labels one below the other: the lines of neighbouring cache levels lie close together.
        at = start * (end / start) ** (0.75 - 0.17 * index)
        out.append(
            text(
                x.place(at) - 5,
                y.place(at * bandwidth) - 3,
                f"{level} {bandwidth / 1e9:.0f} GB/s",
                'class="small" text-anchor="end"',
            )
        )
    for name, rate in peaks.items():
        start = rate / max(roofs.values())
        out.append(
            f'<line class="roof" x1="{x.place(max(start, first)):.1f}" x2="{WIDTH - RIGHT}" '
            f'y1="{y.place(rate):.1f}" y2="{y.place(rate):.1f}"/>'
        )
        out.append(
            text(WIDTH - RIGHT - 2, y.place(rate) - 5, name, 'class="small" text-anchor="end"')
        )
    for index, (name, group) in enumerate(points.items()):
        colour = SPARE[index % len(SPARE)]
        for p in group:
            out.append(
                f'<circle cx="{x.place(p[0]):.1f}" cy="{y.place(p[1]):.1f}" r="4.5" '
                f'fill="{colour}"><title>{html.escape(p[2])}</title></circle>'
            )
        label = TOP + 12 + 18 * index
        out.append(f'<circle cx="{WIDTH - RIGHT + 16}" cy="{label}" r="4.5" fill="{colour}"/>')
        out.append(text(WIDTH - RIGHT + 26, label + 4, name, 'class="small"'))
    return "\n".join([*out, "</svg>"])
