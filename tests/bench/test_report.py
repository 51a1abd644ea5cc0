# bench/report.py: the headline table from made-up rows, and the three files.
import json
import re
import xml.etree.ElementTree

import pytest

import headline
import report
import rows
from made_up_rows import KERNELS, OPS, QAT, group, write_raw


@pytest.fixture
def written(raw, tmp_path, capsys):
    out = tmp_path / "report"
    options = ["--raw", str(raw), "--out", str(out)]
    options += ["--command", "./dev bench --quick", "--note", "peers: none & <none>"]
    assert report.main(options) == 0
    return out, capsys.readouterr().out


def by_name(lines):
    return {x["what"]: x for x in lines}


def table(tmp_path, avx512=False, **suites):
    found = report.read_run(write_raw(tmp_path / "raw", **suites), "", [])
    return by_name(headline.table(found["rows"], avx512))


def test_the_worst_size_counts(tmp_path):
    lines = table(tmp_path, ops=OPS)
    line = lines["fake_quantize f32 per tensor"]
    assert line["value"] == "1.14x" and line["ok"] and line["where"] == "4MiB, 64MiB"
    line = lines["fake_quantize f32 per channel, axis 1"]
    assert line["value"] == "1.40x" and headline.verdict(line) == "MISSED"


def test_forward_and_backward_stand_beside_their_traffic(tmp_path):
    ops = group(
        "fake_quantize",
        "fwd_bwd/per_tensor/f32/4MiB/t1",
        200.0,
        {"copy": 1.0, "traffic": 2.9, "ours": 3.0},
    )
    line = table(tmp_path, ops=ops)["fake_quantize fwd+bwd (STE)"]
    assert line["value"] == "3.00x (its traffic alone 2.90x)"
    assert headline.verdict(line) == "MISSED"  # the promise is the same


def test_gpu_share_of_the_copy(tmp_path):
    op, large = "fake_quantize", "fwd/per_tensor/f32/64MiB/t1"
    small = group(op, "fwd/per_tensor/f32/16MiB/t1", 9.0, {"copy": 1.0, "ours": 9.0})
    gpu = small + group(op, large, 30.0, {"copy": 1.0, "ours": 1.1, "aten": 3.3})
    lines = table(tmp_path, gpu=gpu)
    assert all(name.startswith("GPU ") for name in lines)  # no row of the CPU's
    share = lines["GPU fake_quantize f32 per tensor"]
    assert share["value"] == "91%" and share["ok"] and share["where"] == "64MiB"
    against = lines["GPU fake_quantize f32 against aten"]
    assert against["value"] == "3.00x" and against["ok"]
    lines = table(tmp_path, gpu=group(op, large, 30.0, {"copy": 1.0, "ours": 1.5}))
    assert headline.verdict(lines["GPU fake_quantize f32 per tensor"]) == "MISSED"
    assert headline.verdict(lines["GPU fake_quantize f32 against aten"]) == "not measured"


def test_gpu_per_channel_is_the_worst_axis(tmp_path):
    gpu = []
    for axis, ours, aten in (("0", 1.0, 5.0), ("1", 1.25, 5.0), ("last", 1.0, 4.0)):
        gpu += group(
            "fake_quantize",
            f"fwd/channel_{axis}/f32/64MiB/t1",
            30.0,
            {"copy": 1.0, "ours": ours, "aten": aten},
        )
        gpu += group(
            "fake_quantize_learned",
            f"fwd_bwd/channel_{axis}/f32/64MiB/t1",
            30.0,
            {"copy": 1.0, "ours": 2.0, "aten_learnable": aten * 2},
        )
    lines = table(tmp_path, gpu=gpu)
    assert lines["GPU fake_quantize f32 per channel"]["value"] == "80%"
    assert lines["GPU fake_quantize f32 per channel against aten"]["value"] == "4.00x"
    learned = lines["GPU fake_quantize_learned per channel against aten"]
    assert learned["value"] == "4.00x"
    assert learned["target"] == "(no promise)" and learned["ok"] is None
    assert headline.verdict(lines["GPU fake_quantize f16 per channel"]) == "not measured"


def test_a_gpu_report_has_plots(tmp_path):
    raw = write_raw(
        tmp_path / "raw",
        gpu=group(
            "fake_quantize",
            "fwd/per_tensor/f32/64MiB/t1",
            30.0,
            {"copy": 1.0, "ours": 1.1, "aten": 3.3},
        ),
    )
    assert report.main(["--raw", str(raw), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "GPU fake_quantize fwd, 64 MiB: ratio to x.clone()" in page and page.count("<svg") == 2


def test_speedups_are_of_the_same_group(tmp_path):
    lines = table(tmp_path, ops=OPS)
    line = lines["fake_quantize f32 against aten, 4MiB"]
    assert line["value"] == "18.2x" and line["target"] == ">= 15x" and line["ok"]
    assert lines["fake_quantize f32 against aten, 64MiB"]["value"] == "16.7x"
    assert headline.verdict(lines["fake_quantize f32 against aten, 256KiB"]) == "not measured"
    assert lines["fake_quantize_learned against aten, 4MiB"]["value"] == "20.0x"


def test_an_avx512_machine_has_its_own_promise(tmp_path):
    lines = table(tmp_path, avx512=True, ops=OPS)
    assert lines["fake_quantize f32 against aten, 4MiB"]["target"] == ">= 8x"


def test_small_call_and_threads(tmp_path):
    lines = table(tmp_path, ops=OPS)
    assert lines["a call on 64 elements"]["value"] == "600 ns against 750 ns"
    line = lines["2 threads, fake_quantize f32"]
    assert line["value"] == "1.66x (copy 1.60x)" and line["ok"]


def test_threads_may_be_limited_by_memory(tmp_path):
    slow = [x for x in OPS if "/t2/" not in x["name"]]
    slow += group(
        "fake_quantize", "fwd/per_tensor/f32/64MiB/t2", 14000.0, {"copy": 1.0, "ours": 1.14}
    )
    line = table(tmp_path, ops=slow)["2 threads, fake_quantize f32"]
    assert line["value"] == "1.14x (copy 1.14x)" and line["ok"]


def test_qat_step_and_memory(raw):
    lines = by_name(headline.table(report.read_run(raw, "", [])["rows"], False))
    assert lines["ResNet-18 QAT step"]["ok"]
    assert "aten 1.50x" in lines["ResNet-18 QAT step"]["where"]
    assert lines["ResNet-18 QAT step, memory"]["value"] == "1.10x"


def test_what_was_not_measured_is_said(written):
    _, out = written
    assert re.search(r"^choose_qparams .*not measured", out, re.M)
    assert re.search(r"^GPU .*not measured", out, re.M)


def test_json_holds_meta_rows_and_headline(written):
    data = json.loads((written[0] / "report.json").read_text())
    assert data["meta"]["command"] == "./dev bench --quick"
    assert data["meta"]["torch"] == "2.15.0" and data["meta"]["kernels_isa"] == "AVX2"
    assert data["meta"]["missing_suites"] == ["export", "ort_latency", "peers", "gpu"]
    assert len(data["rows"]) == len(OPS) + len(QAT) + len(KERNELS)
    assert data["headline"][0]["verdict"] == "reached"
    assert rows.read_report(written[0] / "report.json")["rows"] == data["rows"]


def test_html_is_one_file_with_plots(written):
    page = (written[0] / "report.html").read_text()
    assert not re.search(r"(src|href)=|<script|url\(|@import|https?://", page)
    drawings = re.findall(r"<svg.*?</svg>", page, re.S)
    titles = [re.search(r'class="title">([^<]*)', d)[1] for d in drawings]
    for part in ("time of a call", "ratio to x.clone()", "Roofline", "training step", "each ISA"):
        assert any(part in t for t in titles), (part, titles)
    for drawing in drawings:
        xml.etree.ElementTree.fromstring(drawing)
        assert "nan" not in drawing and "inf" not in drawing
    assert "peers: none &amp; &lt;none&gt;" in page


def test_markdown_has_the_table_and_every_row(written):
    page = (written[0] / "report.md").read_text()
    assert "| fake_quantize f32 per tensor | <= 1.15x of a copy | 1.14x | reached |" in page
    assert page.count("| ops/") == sum(1 for _ in OPS)


def test_a_refused_row_is_listed_and_in_no_plot(tmp_path, capsys):
    broken = {
        "name": "fake_quantize/fwd/per_tensor/f16/4MiB/t1/aten",
        "error_occurred": True,
        "error_message": "not implemented for 'Half'",
    }
    folder = write_raw(tmp_path / "raw", ops=[*OPS, broken])
    assert report.main(["--raw", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert (
        "not measured: ops/fake_quantize/fwd/per_tensor/f16/4MiB/t1/aten: "
        "not implemented for 'Half'"
    ) in capsys.readouterr().out


def test_an_empty_folder_is_an_error(tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    assert report.main(["--raw", str(tmp_path / "raw"), "--out", str(tmp_path)]) == 1
    assert "no file of a suite there" in capsys.readouterr().err
