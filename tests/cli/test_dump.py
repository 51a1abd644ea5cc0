# qcdq export --dump: the graph as text after each pass, and what stands in its table of contents.
import re

import pytest

SPEC = ["--input", "x=f32[2,4]"]
LINE = re.compile(r"^(\d{3})  (\S+(?: \S+)*) +  (\S+(?: \S+)*) +  (\S.*)$")


def export(qcdq, model, folder, *arguments):
    return qcdq("export", model, "-o", "o.onnx", *SPEC, "--dump", "dump", *arguments, cwd=folder)


def contents(folder):
    """The lines of the contents as (number, phase, pass, change), and what else is there."""
    head, _, table = (folder / "000_contents.txt").read_text().partition("\n\n")
    matches = [LINE.match(line) for line in table.splitlines()]
    return head, [match.groups() for match in matches if match]


def slug(words):
    return re.sub(r"[^a-z0-9.-]", "-", words.lower())


def test_contents_and_files_agree(qcdq, models, tmp_path):
    result = export(qcdq, models["quantised"], tmp_path)
    assert result.returncode == 0, result
    head, lines = contents(tmp_path / "dump")
    assert head.startswith("Export to o.onnx at opset 21.\n")
    assert [int(number) for number, *_ in lines] == list(range(1, len(lines) + 1))
    changed = {
        f"{number}_{slug(phase)}_{slug(name)}.txt"
        for number, phase, name, change in lines
        if change != "no change" and not change.startswith("wrote ")
    }
    files = {path.name for path in (tmp_path / "dump").iterdir()}
    assert files == changed | {"000_contents.txt"}
    phases = list(dict.fromkeys(phase.split(".")[0] for _, phase, _, _ in lines))
    assert phases[:2] == ["source", "lower 1"] and phases[-3:] == ["qdq", "check", "write"]
    assert "record 1" in phases and "fold 1" in phases


def test_a_line_says_which_nodes_came_and_went(qcdq, models, tmp_path):
    result = export(qcdq, models["quantised"], tmp_path)
    assert result.returncode == 0, result
    _, lines = contents(tmp_path / "dump")
    by_pass = {name: change for _, phase, name, change in lines if phase in ("convert", "qdq")}
    assert by_pass["symbolic functions"].startswith("the first ONNX graph, ")
    # The float bias becomes codes behind a DequantizeLinear.
    assert by_pass["quantize biases"] == "+1 DequantizeLinear"


def test_no_weight_data_and_no_folder_of_this_machine(qcdq, models, tmp_path):
    result = export(qcdq, models["net"], tmp_path)
    assert result.returncode == 0, result
    texts = [path.read_text() for path in (tmp_path / "dump").iterdir()]
    assert any("%fc1.weight: float32[8,4]\n" in text for text in texts)
    assert not any("%fc1.weight: float32[8,4] =" in text for text in texts)
    assert not any(str(tmp_path.parent) in text or "/tests/" in text for text in texts)


def test_a_second_dump_replaces_the_first(qcdq, models, tmp_path):
    folder = tmp_path / "dump"
    folder.mkdir()
    (folder / "999_lower-9_gone.txt").write_text("of an earlier dump")
    (folder / "001_notes.txt").write_text("mine")
    assert export(qcdq, models["quantised"], tmp_path).returncode == 0
    first = {path.name: path.read_text() for path in folder.iterdir()}
    assert "999_lower-9_gone.txt" not in first and first["001_notes.txt"] == "mine"
    assert export(qcdq, models["net"], tmp_path).returncode == 0
    assert "Gemm" in (folder / "000_contents.txt").read_text()
    assert export(qcdq, models["quantised"], tmp_path).returncode == 0
    assert {path.name: path.read_text() for path in folder.iterdir()} == first


def test_a_refused_export_leaves_its_dump(qcdq, models, tmp_path):
    result = qcdq(
        *("export", models["net"], "-o", "o.onnx", "--input", "x=f32[2,5]", "--dump", "dump"),
        cwd=tmp_path,
    )
    assert result.returncode == 1, result
    assert result.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dump"]
    _, lines = contents(tmp_path / "dump")
    *done, (_, phase, name, change) = lines
    assert (phase, name) == ("record 1", "types from the examples")
    assert change.startswith("FAILED: ") and "shapes cannot be multiplied" in change
    assert any(change != "no change" for *_, change in done)


@pytest.mark.parametrize("where", ["o.txt", "o.txt/below"])
def test_a_folder_that_cannot_be_made(refused, models, tmp_path, where):
    (tmp_path / "o.txt").write_text("a file")
    line = refused("export", models["net"], "-o", "o.onnx", *SPEC, "--dump", where, code=1)
    assert line == f"qcdq export: cannot make folder {where}: Not a directory"


def test_an_empty_folder_name(refused, models):
    line = refused("export", models["net"], "-o", "o.onnx", *SPEC, "--dump", "", code=2)
    assert "--dump: expected a folder" in line
