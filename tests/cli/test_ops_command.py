# qcdq ops, and docs/operators.md, which is its output.
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_operators_page_is_current(qcdq):
    result = qcdq("ops", "--markdown")
    assert result.returncode == 0, result
    page = (ROOT / "docs" / "operators.md").read_text()
    assert result.stdout == page, "run: build/bin/qcdq ops --markdown > docs/operators.md"


def test_table(qcdq):
    result = qcdq("ops")
    assert result.returncode == 0, result
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["torch", "op", "opset", "file", "ONNX"]
    rows = [line.split() for line in lines[1:]]
    names = [row[0] for row in rows]
    assert "qcdq::fake_quantize" in names
    assert "aten::relu" in names
    assert names == sorted(names)
    for name, _, file, *_ in rows:
        source = (ROOT / "symbolic" / "symbolics" / file).read_text()
        assert f'"{name}"' in source, f"{file} has no row for {name}"


def test_opset_picks_one_row_per_op(qcdq):
    for opset in [10, 13, 26]:
        result = qcdq("ops", "--opset", opset)
        assert result.returncode == 0, result
        rows = [line.split()[:2] for line in result.stdout.splitlines()[1:]]
        names = [name for name, _ in rows]
        assert len(names) == len(set(names))
        assert all(int(since) <= opset for _, since in rows)
