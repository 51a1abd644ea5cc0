# bench/compare.py: what counts as a change, and the exit status.
import json

import pytest

import compare
from made_up_rows import entry

NAME = "fake_quantize/fwd/per_tensor/f32/4MiB/t1/ours"


def file_of(tmp_path, name, *entries):
    path = tmp_path / name / "ops.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"context": {"cpu": "one"}, "benchmarks": list(entries)}))
    return str(path)


def run(tmp_path, before, after, *options):
    return compare.main(
        [file_of(tmp_path, "before", before), file_of(tmp_path, "after", after), *options]
    )


def test_same_files_exit_0(tmp_path, capsys):
    assert run(tmp_path, entry(NAME, 100, 1.1), entry(NAME, 100, 1.1)) == 0
    assert (
        "1 rows compared by ratio: 0 regression, 0 slower, 0 faster, 1 same"
        in capsys.readouterr().out
    )


def test_slower_past_the_threshold_exits_1(tmp_path, capsys):
    assert run(tmp_path, entry(NAME, 100, 1.0), entry(NAME, 120, 1.2)) == 1
    out = capsys.readouterr().out
    assert "regression" in out and "+20.0 %" in out and "1.00x -> 1.20x" in out and NAME in out


def test_slower_within_the_threshold_exits_0(tmp_path, capsys):
    assert run(tmp_path, entry(NAME, 100, 1.0), entry(NAME, 120, 1.2), "--threshold", "25") == 0
    assert "1 slower" in capsys.readouterr().out


def test_overlapping_quartiles_are_noise(tmp_path, capsys):
    before, after = entry(NAME, 100, 1.0, spread=0.2), entry(NAME, 125, 1.25, spread=0.2)
    assert run(tmp_path, before, after) == 0
    assert "1 same" in capsys.readouterr().out


def test_faster_is_reported_and_exits_0(tmp_path, capsys):
    assert run(tmp_path, entry(NAME, 100, 2.0), entry(NAME, 50, 1.0)) == 0
    out = capsys.readouterr().out
    assert "faster" in out and "-50.0 %" in out


def test_metric_time_ignores_the_ratio(tmp_path):
    before, after = entry(NAME, 100, 1.0), entry(NAME, 200, 1.0)
    assert run(tmp_path, before, after) == 0
    again = tmp_path / "again"
    again.mkdir()
    assert run(again, before, after, "--metric", "time") == 1


def test_a_row_that_fails_now_exits_1(tmp_path, capsys):
    broken = {"name": NAME, "error_occurred": True, "error_message": "no such op"}
    assert run(tmp_path, entry(NAME, 100, 1.0), broken) == 1
    assert f"fails now  ops/{NAME}: no such op" in capsys.readouterr().out


def test_nothing_in_common_exits_2(tmp_path, capsys):
    other = NAME.replace("4MiB", "8MiB")
    assert run(tmp_path, entry(NAME, 100, 1.0), entry(other, 100, 1.0)) == 2
    assert "no row in common" in capsys.readouterr().err


def test_a_file_of_another_kind_exits_2(tmp_path, capsys):
    path = tmp_path / "other.json"
    path.write_text("{}")
    assert compare.main([str(path), str(path)]) == 2
    assert "neither a report.json nor a file of Google Benchmark" in capsys.readouterr().err
    assert compare.main([str(tmp_path / "absent.json"), str(path)]) == 2
    assert "absent.json" in capsys.readouterr().err


def test_a_threshold_of_0_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        run(tmp_path, entry(NAME, 100, 1.0), entry(NAME, 100, 1.0), "--threshold", "0")
    assert exit_.value.code == 2
    assert "--threshold 0.0: expected a percentage > 0" in capsys.readouterr().err


def test_a_name_with_too_few_fields_exits_2(tmp_path, capsys):
    assert run(tmp_path, entry("copy/64", 1, 1.0), entry("copy/64", 1, 1.0)) == 2
    assert "a row is named op/pass/granularity/type/size/tTHREADS/impl" in capsys.readouterr().err
