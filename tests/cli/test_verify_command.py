# qcdq verify: exit 3 for a file of another model, shapes from the file, seeds, text and JSON.
import json

import pytest


@pytest.fixture(scope="module")
def exported(qcdq, models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")

    def export(name, *arguments):
        path = folder / f"{name}.onnx"
        result = qcdq("export", models[name], "-o", path, *arguments)
        assert result.returncode == 0, result
        return path

    return {
        "net": export("net", "--input", "x=f32[2,4]", "--dynamic", "x:0=N"),
        "quantised": export("quantised", "--input", "x=f32[2,4]"),
        "embedding": export("embedding", "--input", "ids=i64[1,8]", "--dynamic", "ids:1=L"),
    }


def test_shapes_from_the_file(qcdq, models, exported):
    result = qcdq("verify", models["net"], exported["net"], "--json")
    assert result.returncode == 0, result
    report = json.loads(result.stdout)
    assert report["ok"] and report["ort_version"]
    assert len({o["run"] for o in report["outputs"]}) == 4  # off and on, sizes 2 and 3


def test_text(qcdq, models, exported):
    result = qcdq("verify", models["quantised"], exported["quantised"], "--codes")
    assert result.returncode == 0, result
    assert "verified in ONNX Runtime" in result.stdout
    assert "0 differ with optimisations off" in result.stdout
    assert "0 of 8 differ" in result.stdout  # the input's quantiser, by name


def test_mismatch(qcdq, models, exported):
    result = qcdq("verify", models["other"], exported["net"])
    assert result.returncode == 3, result
    assert "MISMATCH" in result.stdout
    assert result.stderr.startswith("qcdq verify: ")
    report = json.loads(qcdq("verify", models["other"], exported["net"], "--json").stdout)
    assert not report["ok"] and report["failures"]
    assert report["max_relative"] > 1e-2


def test_runs_and_seed(qcdq, models, exported):
    arguments = ["--input", "x=f32[5,4]", "--random", "3", "--seed", "7", "--json"]
    first = qcdq("verify", models["other"], exported["net"], *arguments)
    again = qcdq("verify", models["other"], exported["net"], *arguments)
    assert first.returncode == 3
    report = json.loads(first.stdout)
    assert len(report["outputs"]) == 12  # 3 runs, 2 sizes, 2 optimisation levels
    assert report["outputs"] == json.loads(again.stdout)["outputs"]
    arguments[5] = "8"
    assert (
        report["outputs"]
        != json.loads(qcdq("verify", models["other"], exported["net"], *arguments).stdout)[
            "outputs"
        ]
    )


@pytest.mark.parametrize(
    "optimization, runs", [("off", ["off"]), ("all", ["on"]), ("both", ["off", "on"])]
)
def test_optimization(qcdq, models, exported, optimization, runs):
    for name in ("embedding", "quantised"):
        arguments = ["--optimization", optimization, "--json"]
        result = qcdq("verify", models[name], exported[name], *arguments)
        assert result.returncode == 0, result
        if name == "quantised" and optimization == "all":  # judged by the run without
            runs = ["off", "on"]
        listed = {o["run"].split(",")[0] for o in json.loads(result.stdout)["outputs"]}
        assert listed == {f"optimisations {run}" for run in runs}


def test_integer_inputs(qcdq, models, exported):
    for arguments in [[], ["--input", "ids=i64[2,3]{0..49}"], ["--input", "ids=[2,3]"]]:
        if arguments:
            arguments[1] = arguments[1].replace("[2,3]", "[1,3]")
        result = qcdq("verify", models["embedding"], exported["embedding"], *arguments)
        assert result.returncode == 0, result


def test_rank_differs_from_the_file(refused, models, exported):
    line = refused("verify", models["net"], exported["net"], "--input", "x=f32[4]", code=2)
    assert line == ("qcdq verify: --input x: 1 dimensions, the file's input is float32[N,4]")


def test_missing_runtime(refused, models, exported):
    line = refused("verify", models["net"], exported["net"], "--ort", "gone.so", code=1)
    assert line.startswith("qcdq verify: ") and "gone.so" in line


def test_files_that_are_not_there(refused, models):
    line = refused("verify", models["net"], "gone.onnx", code=1)
    assert line == "qcdq verify: cannot open gone.onnx: No such file or directory"
