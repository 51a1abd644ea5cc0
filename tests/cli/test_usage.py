# The command line itself: help, exit code 2 for what is outside the documented sets, refusals by
# name, one line each.
import pytest


@pytest.mark.parametrize("command", ["export", "verify", "inspect", "ops"])
def test_help_has_examples(qcdq, command):
    result = qcdq(command, "--help")
    assert result.returncode == 0, result
    assert "Examples:" in result.stdout and f"qcdq {command}" in result.stdout


def test_version_and_help(qcdq):
    assert qcdq("--version").stdout.strip() == "qcdq 0.1.0"
    result = qcdq("--help")
    assert result.returncode == 0
    for command in ["export", "verify", "inspect", "ops", "quantize", "bench"]:
        assert command in result.stdout


def test_no_command(refused):
    assert refused(code=2) == (
        "qcdq: a command is missing, expected one of export, verify, inspect, ops; see qcdq --help"
    )


def test_unknown_command_and_option(refused):
    assert "convert" in refused("convert", code=2)
    line = refused("export", "m.pt", "-o", "o.onnx", "--opsets", "13", code=2)
    assert line.startswith("qcdq export: ") and "--opsets" in line


def test_missing_arguments(refused):
    assert "MODEL" in refused("export", "-o", "o.onnx", code=2)
    assert "--out" in refused("export", "m.pt", code=2)
    assert "OUT.onnx" in refused("verify", "m.pt", code=2)


BAD_VALUES = [
    (["--opset", "9"], "--opset 9: expected 10 to 26"),
    (["--opset", "27"], "--opset 27: expected 10 to 26"),
    (["--format", "tflite"], "--format tflite: expected one of qcdq, qop, qonnx"),
    (
        ["--activation-storage", "u8"],
        "--activation-storage u8: expected one of auto, signed, unsigned",
    ),
    (["--weights", "float"], "--weights float: expected one of int, qdq"),
    (["--weight-storage", "int4"], "--weight-storage int4: expected one of int8, uint8"),
    (["--external-data", "yes"], "--external-data yes: expected one of auto, always, never"),
    (
        ["--input", "x=f33[1,4]"],
        (
            "--input x=f33[1,4]: unknown type 'f33', expected one of f32 f16 bf16 f64 i8 u8 i16 "
            "i32 i64 bool"
        ),
    ),
    (
        ["--input", "x"],
        (
            "--input x: expected NAME=DTYPE[D0,D1,...], NAME=[D0,D1,...] or NAME=FILE.npy, such as "
            "x=f32[1,3,224,224]"
        ),
    ),
    (["--dynamic", "x:0"], "--dynamic x:0: expected NAME:AXIS=SYMBOL, such as x:0=N"),
    (["--dynamic", "x:0=2"], "--dynamic x:0=2: the symbol is a number, expected a name such as N"),
]


@pytest.mark.parametrize("arguments, message", BAD_VALUES)
def test_value_outside_its_set(refused, models, arguments, message):
    if arguments[0] != "--input":
        arguments = ["--input", "x=f32[1,4]", *arguments]
    line = refused("export", models["net"], "-o", "o.onnx", *arguments, code=2)
    assert line == f"qcdq export: {message}"


def test_opset_that_is_no_number(refused, models):
    line = refused("export", models["net"], "-o", "o.onnx", "--opset", "new", code=2)
    assert "--opset" in line and "new" in line


def test_verify_and_ops_values(refused, models):
    line = refused("verify", models["net"], "o.onnx", "--optimization", "some", code=2)
    assert line == "qcdq verify: --optimization some: expected one of off, all, both"
    line = refused("verify", models["net"], "o.onnx", "--random", "0", code=2)
    assert line == "qcdq verify: --random 0: expected 1 or more"
    assert refused("ops", "--opset", "9", code=2) == "qcdq ops: --opset 9: expected 10 to 26"


@pytest.mark.parametrize("name", ["qop", "qonnx"])
def test_format_not_built(refused, models, name):
    line = refused("export", models["net"], "-o", "o.onnx", "--format", name, code=1)
    assert line == f"qcdq export: --format {name} is not built yet; use qcdq"


@pytest.mark.parametrize("command", ["quantize", "bench"])
def test_command_not_built(refused, command):
    line = refused(command, "m.pt", "-o", "o.onnx", "--calibration", "d", code=1)
    assert line == f"qcdq {command}: this command is not built yet"


def test_html_not_built(refused):
    line = refused("inspect", "o.onnx", "--html", "o.html", code=1)
    assert line == "qcdq inspect: --html is not built yet; use --json"


def test_pt2_that_is_no_archive(refused, tmp_path):
    (tmp_path / "m.pt2").write_bytes(b"PK")
    line = refused("export", "m.pt2", "-o", "o.onnx", code=1)
    assert line == (
        "qcdq export: m.pt2: not a zip archive, and so no .pt2 file; save one with "
        "torch.export.save (torch 2.11 to 2.15)"
    )


def test_plugin_that_is_not_there(refused, models):
    line = refused("export", models["net"], "-o", "o.onnx", "--plugin", "./libmine.so", code=1)
    assert line.startswith("qcdq export: --plugin ./libmine.so: ./libmine.so: cannot open")


def test_plugin_that_is_no_library(refused, models, tmp_path):
    (tmp_path / "libmine.so").write_text("no library")
    line = refused("export", models["net"], "-o", "o.onnx", "--plugin", "libmine.so", code=1)
    assert line.startswith("qcdq export: --plugin libmine.so: ")
    assert "invalid ELF header" in line or "file too short" in line


def test_model_may_follow_the_specs(refused):
    """--input takes words with a '=' only."""
    line = refused("export", "-o", "o.onnx", "--input", "x=f32[1]", "gone.pt", code=1)
    assert line.startswith("qcdq export: ") and "gone.pt" in line
