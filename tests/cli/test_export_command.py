# qcdq export: its report as text and JSON, --verify, and what is left after a failure.
import json

import onnx
import pytest

SPEC = ["--input", "x=f32[2,4]"]


def test_text_report(qcdq, models, tmp_path):
    result = qcdq("export", models["net"], "-o", "o.onnx", *SPEC, cwd=tmp_path)
    assert result.returncode == 0, result
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0].startswith("o.onnx: ") and ", opset 21, IR 10" in lines[0]
    assert "node" in lines[1] and "Gemm 2" in lines[1] and "Relu 1" in lines[1]
    assert " to load, " in lines[-1] and "convert" in lines[-1]


def test_json_report(qcdq, models, tmp_path):
    arguments = [*SPEC, "--dynamic", "x:0=N", "--opset", "17", "--verify", "--json"]
    result = qcdq("export", models["net"], "-o", "o.onnx", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result
    report = json.loads(result.stdout)
    assert report["path"] == "o.onnx"
    assert report["opset"] == 17
    assert report["file_bytes"] == (tmp_path / "o.onnx").stat().st_size
    assert report["external_bytes"] == 0
    model = onnx.load(str(tmp_path / "o.onnx"))
    assert report["ir_version"] == model.ir_version
    assert sum(report["nodes_by_op"].values()) == len(model.graph.node)
    assert report["phases"][0]["phase"] == "source"
    assert report["seconds"] == pytest.approx(sum(p["seconds"] for p in report["phases"]))
    verified = report["verify"]
    assert verified["ok"] and verified["failures"] == []
    assert verified["max_relative"] < 1e-4
    # Optimisations off and on, at two sizes.
    assert len({o["run"] for o in verified["outputs"]}) == 4


def test_quantized_codes(qcdq, models, tmp_path):
    arguments = [*SPEC, "--verify", "--json"]
    result = qcdq("export", models["quantised"], "-o", "o.onnx", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result
    verified = json.loads(result.stdout)["verify"]
    assert verified["codes_compared"] > 0
    assert verified["codes_differing"] == 0


def test_options_reach_the_file(qcdq, models, tmp_path):
    arguments = [*SPEC, "--activation-storage", "signed", "--weights", "qdq", "--output", "y"]
    result = qcdq("export", models["quantised"], "-o", "o.onnx", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result
    model = onnx.load(str(tmp_path / "o.onnx"))
    metadata = {p.key: p.value for p in model.metadata_props}
    assert metadata["qcdq.activation_storage"] == "signed"
    assert metadata["qcdq.weights"] == "qdq"
    assert [o.name for o in model.graph.output] == ["y"]


def test_missing_runtime_keeps_the_file(qcdq, models, tmp_path):
    arguments = [*SPEC, "--verify", "--json", "--ort", "gone.so"]
    result = qcdq("export", models["net"], "-o", "o.onnx", *arguments, cwd=tmp_path)
    assert result.returncode == 1, result
    assert result.stderr.count("\n") == 1 and "gone.so" in result.stderr
    assert json.loads(result.stdout)["verify"] is None
    onnx.checker.check_model(onnx.load(str(tmp_path / "o.onnx")), full_check=True)


def test_an_older_file_survives_a_refusal(qcdq, models, tmp_path):
    (tmp_path / "o.onnx").write_text("older")
    arguments = ["--input", "x=f32[2,5]"]
    result = qcdq("export", models["net"], "-o", "o.onnx", *arguments, cwd=tmp_path)
    assert result.returncode == 1, result
    assert result.stderr.startswith("qcdq export: ") and result.stderr.count("\n") == 1
    assert "shapes cannot be multiplied" in result.stderr
    assert (tmp_path / "o.onnx").read_text() == "older"
    assert [p.name for p in tmp_path.iterdir()] == ["o.onnx"]


def test_missing_model(refused):
    line = refused("export", "gone.pt", "-o", "o.onnx", *SPEC, code=1)
    assert line.startswith("qcdq export: ") and "gone.pt" in line and "No such file" in line


def test_out_is_a_folder(refused, models, tmp_path):
    (tmp_path / "o.onnx").mkdir()
    line = refused("export", models["net"], "-o", "o.onnx", *SPEC, code=1)
    assert line.endswith("o.onnx is a directory")
