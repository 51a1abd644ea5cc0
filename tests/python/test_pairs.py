# Every pair of pairs.py through four exporters: torch.onnx with dynamo=False and dynamo=True, and
# the program from a .pt and a .pt2 file. The files are valid, and have the same codes and the same
# outputs in ONNX Runtime (ORT), at every opset.
# Code under test: python/qcdq/onnx_hooks.py, symbolic/quantizer/nodes.cpp, symbolic/source/.
import json

import onnx
import pytest
import torch

from conftest import relative_difference, run_ort
from pairs import PAIRS, all_codes, check, check_file, make_net, torch_onnx

pytest.importorskip("onnxscript")
SHORT = ("tutorial-w3-a4", "digits-w4c-a4", "mlp-shifted4")  # the rest runs with --all
OPSETS = (13, 17, 18, 21, 23)
DYNAMO_OPSETS = (18, 21, 23)  # torch.onnx has none below 18 with dynamo=True


def with_torch_onnx(dynamo):
    def write(_qcdq, net, x, path, opset):
        torch_onnx(net, x, path, dynamo, opset)

    return write


def with_program(form):
    """`qcdq export --verify`: torch's outputs, and no code different from torch's."""

    def write(qcdq, net, x, path, opset):
        source = path.with_suffix(f".{form}")
        spec = f"x=f32[{','.join(map(str, x.shape))}]"
        if form == "pt":
            with torch.no_grad():
                torch.jit.save(torch.jit.trace(net, x), str(source))
        else:
            torch.export.save(torch.export.export(net, (x,)), str(source))
        options = ["--input", spec] if form == "pt" else []
        made = qcdq("export", source, "-o", path, "--opset", opset, *options, "--verify", "--json")
        assert made.returncode == 0, made.stderr
        assert json.loads(made.stdout)["verify"]["codes_differing"] == 0

    return write


EXPORTERS = {
    "script": with_torch_onnx(dynamo=False),
    "dynamo": with_torch_onnx(dynamo=True),
    "pt": with_program("pt"),
    "pt2": with_program("pt2"),
}


def assert_exporters_agree(qcdq, pair, opset, folder):
    net, x = make_net(pair)
    outputs, codes = {}, {}
    for name, write in EXPORTERS.items():
        if name == "dynamo" and opset not in DYNAMO_OPSETS:
            continue
        path = folder / f"{name}.onnx"
        write(qcdq, net, x, path, opset)
        versions = {o.domain: o.version for o in onnx.load(str(path)).opset_import}
        assert versions[""] == opset, name
        if pair.startswith("resnet18"):  # sums in another order move codes at ties, layer by layer
            check_file(path, x)
        else:
            check(path, net, x)
        outputs[name] = run_ort(path, x, optimize=False)[0]
        codes[name] = all_codes(path, x)
    for name, expected in codes.items():
        assert codes["pt"] == expected, name
        assert relative_difference(outputs["pt"], outputs[name]) < 1e-5, name


def cases():
    for pair in PAIRS:
        for opset in OPSETS:
            marks = [] if pair in SHORT and opset == 21 else [pytest.mark.slow]
            yield pytest.param(pair, opset, marks=marks, id=f"{pair}-{opset}")


@pytest.mark.parametrize("pair, opset", list(cases()))
def test_four_exporters_agree(qcdq, pair, opset, tmp_path):
    assert_exporters_agree(qcdq, pair, opset, tmp_path)
