# Random models that write in place through views, as traces, scripts and programs of torch.export:
# what ONNX Runtime computes, on other values than the example, is what torch computes. The program
# write_programs prints the models (tests/symbolic/lower/random_writes.h).
# Code under test: symbolic/lower/.
import collections
import re
import subprocess
import warnings

import pytest
import torch

import qcdq
from conftest import run_ort

MODULE = "import torch\nclass Net(torch.nn.Module):\n"


@pytest.fixture(scope="session")
def random_model(write_programs, tmp_path_factory):
    """random_model(seed): the model of a random program; None where torch does not run it."""
    folder = tmp_path_factory.mktemp("models")

    def make(seed):
        command = [str(write_programs), str(seed), str(seed + 1)]
        source = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        indented = re.sub("^(?=.)", "    ", source, flags=re.MULTILINE)
        path = folder / f"model_{seed}.py"  # torch.jit.script reads the source from the file
        path.write_text(MODULE + indented)
        space = {"__name__": path.stem}
        exec(compile(path.read_text(), str(path), "exec"), space)
        model = space["Net"]().eval()
        try:
            computed(model, values(seed))
        except RuntimeError:
            return None
        return model

    return make


def values(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 6, generator=generator), torch.randn(6, generator=generator)


def computed(model, inputs):
    with torch.no_grad():
        return model(*(value.clone() for value in inputs))  # the model may write to them


def in_form(model, form, inputs):
    copies = tuple(value.clone() for value in inputs)
    if form == "trace":
        return torch.jit.trace(model, copies, check_trace=False)
    if form == "script":
        return torch.jit.script(model)
    return torch.export.export(model, copies)


def export_all(random_model, path, form, seeds):
    """Exports and compares; the refusals, counted by reason, and how many were the same."""
    refused = collections.Counter()
    same = 0
    for seed in seeds:
        model = random_model(seed)
        if model is None:
            continue
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            given = in_form(model, form, values(seed))
        try:
            qcdq.export_onnx(given, values(seed), path)
        except RuntimeError as error:
            refused[re.sub(r" \[at .*", "", str(error).splitlines()[0])] += 1
            continue
        others = values(seed + 1)
        for one, other in zip(computed(model, others), run_ort(path, *others), strict=True):
            assert torch.allclose(other, one, rtol=1e-5, atol=1e-6), f"{form}, program {seed}"
        same += 1
    print(form, same, "the same; refused:", dict(refused))
    assert sum(refused.values()) * 10 < same + sum(refused.values()), refused
    return same


@pytest.mark.parametrize("form", ["trace", "script", "export"])
def test_random_programs(random_model, tmp_path, form):
    assert export_all(random_model, tmp_path / "m.onnx", form, range(25)) > 15


@pytest.mark.slow
@pytest.mark.parametrize("form", ["trace", "script", "export"])
def test_more_random_programs(random_model, tmp_path, form):
    assert export_all(random_model, tmp_path / "m.onnx", form, range(1000, 1400)) > 250
