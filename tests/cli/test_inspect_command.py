# qcdq inspect: on hand-made files and on exported ones, text and JSON.
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture
def hand_made(tmp_path):
    """x -> Q -> Clip[0,15] -> DQ; Conv with a per-channel int8 weight and an int32 bias."""
    arrays = {
        "s_x": np.float32(0.5),
        "z_x": np.uint8(3),
        "lo": np.uint8(0),
        "hi": np.uint8(15),
        "w": np.ones((2, 1, 1, 1), np.int8),
        "s_w": np.array([0.25, 0.75], np.float32),
        "z_w": np.zeros(2, np.int8),
        "b": np.zeros(2, np.int32),
        "s_b": np.array([0.125, 0.375], np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s_x", "z_x"], ["q"], name="x_Q"),
        helper.make_node("Clip", ["q", "lo", "hi"], ["c"], name="x_Clip"),
        helper.make_node("DequantizeLinear", ["c", "s_x", "z_x"], ["d"], name="x_DQ"),
        helper.make_node("DequantizeLinear", ["w", "s_w", "z_w"], ["wd"], name="w_DQ", axis=0),
        helper.make_node("DequantizeLinear", ["b", "s_b"], ["bd"], name="b_DQ", axis=0),
        helper.make_node("Conv", ["d", "wd", "bd"], ["y"], name="conv"),
    ]
    graph = helper.make_graph(
        nodes,
        "hand",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, None, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2, None, 4])],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21)], producer_name="hand", ir_version=10
    )
    onnx.save(model, str(tmp_path / "m.onnx"))
    return tmp_path / "m.onnx"


def test_json(qcdq, hand_made):
    result = qcdq("inspect", hand_made, "--json")
    assert result.returncode == 0, result
    summary = json.loads(result.stdout)
    assert summary["opset"] == 21 and summary["ir_version"] == 10
    assert summary["producer"] == "hand"
    assert summary["file_bytes"] == hand_made.stat().st_size
    assert summary["inputs"] == [{"name": "x", "dtype": "float32", "dims": ["N", 1, None, 4]}]
    assert summary["nodes_by_op"] == {
        "Clip": 1,
        "Conv": 1,
        "DequantizeLinear": 3,
        "QuantizeLinear": 1,
    }
    assert summary["initializers"]["int8"] == {"tensors": 2, "bytes": 4}
    assert summary["initializers"]["int32"] == {"tensors": 1, "bytes": 8}
    activation, weight, bias = summary["quantizers"]
    assert activation == {
        "node": "x_Q",
        "tensor": "x",
        "role": "activation",
        "dtype": "uint8",
        "quant_min": 0,
        "quant_max": 15,
        "axis": None,
        "block_size": None,
        "scale": [0.5],
        "zero_point": [3],
    }
    assert weight["role"] == "weight" and weight["dtype"] == "int8" and weight["axis"] == 0
    assert weight["scale"] == [0.25, 0.75] and weight["zero_point"] == [0, 0]
    assert bias["role"] == "bias" and bias["zero_point"] == [0]
    assert [(c["op_type"], c["int8"]) for c in summary["coverage"]] == [("Conv", False)]
    assert summary["coverage"][0]["reason"]


def test_text(qcdq, hand_made):
    result = qcdq("inspect", hand_made)
    assert result.returncode == 0, result
    assert ", opset 21, IR 10, by hand" in result.stdout
    assert "inputs:  x float32[N,1,?,4]" in result.stdout
    assert "6 nodes: DequantizeLinear 3, " in result.stdout
    assert "activation x: uint8 in [0,15], per tensor, scale 0.5, zero point 3" in result.stdout
    assert "weight w: int8, axis 0, scale 0.25 .. 0.75, zero point 0" in result.stdout
    assert "int8 in ONNX Runtime: 0 of 1 nodes that could be" in result.stdout
    assert "float conv: " in result.stdout


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("dtype", ["FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE"])
def test_scale_types(qcdq, tmp_path, dtype, raw):
    """Scales in typed fields and raw bytes, of every floating type."""
    number = getattr(TensorProto, dtype)
    scale = helper.make_tensor("s", number, [], [0.75])
    if raw:
        scale = numpy_helper.from_array(numpy_helper.to_array(scale), "s")
        scale.data_type = number
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "s"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", number, [2])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [2])],
        [scale],
    )
    onnx.save(helper.make_model(graph), str(tmp_path / "m.onnx"))
    result = qcdq("inspect", "m.onnx", "--json", cwd=tmp_path)
    assert result.returncode == 0, result
    assert json.loads(result.stdout)["quantizers"][0]["scale"] == [0.75]


def test_int4_and_blocks(qcdq, tmp_path):
    weight = helper.make_tensor("w", TensorProto.INT4, [4, 2], [1, -2, 3, -4, 5, -6, 7, -8])
    scale = numpy_helper.from_array(np.ones((2, 2), np.float32), "s")
    node = helper.make_node("DequantizeLinear", ["w", "s"], ["y"], axis=0, block_size=2)
    graph = helper.make_graph(
        [node],
        "g",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 2])],
        [weight, scale],
    )
    onnx.save(helper.make_model(graph), str(tmp_path / "m.onnx"))
    result = qcdq("inspect", "m.onnx", "--json", cwd=tmp_path)
    assert result.returncode == 0, result
    summary = json.loads(result.stdout)
    quantizer = summary["quantizers"][0]
    assert (quantizer["dtype"], quantizer["axis"], quantizer["block_size"]) == ("int4", 0, 2)
    assert summary["initializers"]["int4"] == {"tensors": 1, "bytes": 4}


def test_external_data(qcdq, hand_made, tmp_path):
    model = onnx.load(str(hand_made))
    onnx.save(
        model,
        str(tmp_path / "e.onnx"),
        save_as_external_data=True,
        location="e.bin",
        size_threshold=0,
    )
    result = qcdq("inspect", "e.onnx", "--json", cwd=tmp_path)
    assert result.returncode == 0, result
    summary = json.loads(result.stdout)
    assert summary["external_bytes"] > 0
    assert summary["quantizers"][1]["scale"] == [0.25, 0.75]


def test_external_data_that_is_gone(refused, hand_made, tmp_path):
    onnx.save(
        onnx.load(str(hand_made)),
        str(tmp_path / "e.onnx"),
        save_as_external_data=True,
        location="e.bin",
        size_threshold=0,
    )
    (tmp_path / "e.bin").unlink()
    line = refused("inspect", "e.onnx", code=1)
    assert line == "qcdq inspect: cannot read the external data of 's_x' from e.bin"


def test_exported_file(qcdq, models, tmp_path):
    path = tmp_path / "o.onnx"
    done = qcdq("export", models["quantised"], "-o", path, "--input", "x=f32[2,4]")
    assert done.returncode == 0, done
    result = qcdq("inspect", path, "--json")
    assert result.returncode == 0, result
    summary = json.loads(result.stdout)
    assert summary["producer"].startswith("qcdq ")
    roles = [q["role"] for q in summary["quantizers"]]
    assert roles.count("activation") == 2 and roles.count("weight") == 1
    assert any(line["int8"] for line in summary["coverage"]), summary["coverage"]
    assert summary["metadata"]["qcdq.format"] == "qcdq"


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04zip", b"\x08\x0a"])
def test_not_onnx(refused, tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    assert refused("inspect", "m.onnx", code=1) == "qcdq inspect: m.onnx is not an ONNX file"


def test_truncated(refused, hand_made, tmp_path):
    (tmp_path / "t.onnx").write_bytes(hand_made.read_bytes()[:-7])
    assert refused("inspect", "t.onnx", code=1) == "qcdq inspect: t.onnx is not an ONNX file"


def test_not_there(refused):
    line = refused("inspect", "gone.onnx", code=1)
    assert line == "qcdq inspect: cannot open gone.onnx: No such file or directory"
    line = refused("inspect", ".", code=1)
    assert line == "qcdq inspect: cannot read .: Is a directory"
