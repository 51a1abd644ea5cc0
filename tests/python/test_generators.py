# Every network of models.py and zoo.py as a program of torch.export (.pt2), as exported and after
# run_decompositions(), beside its traced .pt file: verified by the program, and run in ONNX Runtime
# (ORT) on inputs that the exporter has not seen. test_zoo.py has the scripted forms.
import json

import pytest
import torch
from torch.export import export

import models
import zoo
from conftest import assert_like_eager, input_options

TOLERANCE = 1e-4
FAST = list(zoo.SMALL)
SLOW = [*models.NAMES, *zoo.LARGE]
FORMS = {
    "exported": lambda program: program,
    "core": lambda program: program.run_decompositions(),
}
# (network, form): why it is refused for now. Strict: an entry that works again fails here.
EXPECTED_FAILURES = {
    ("detection", "core"): "squeeze.dims of nonzero's result, of which the record has no sizes",
}


def make(name):
    """The eager model, the inputs it is exported with, and others of the same shapes."""
    if name in models.NAMES:
        torch.manual_seed(2)
        return models.float_model(name), (torch.randn(models.IMAGE),), (torch.randn(models.IMAGE),)
    model, inputs = zoo.make(name)
    if name in zoo.DICTS:  # a trace has no dicts
        model = zoo.Output(model)
    return model, inputs, zoo.other_inputs(name)


def verified(qcdq, source, output, *options):
    """Exports with --verify: outputs within 1e-4 of torch, no code different."""
    made = qcdq("export", source, "-o", output, "--verify", "--json", *options)
    assert made.returncode == 0, made.stderr
    report = json.loads(made.stdout)["verify"]
    assert report["ok"] and report["max_relative"] < TOLERANCE


def cases():
    for name in FAST + SLOW:
        for form in [*FORMS, "trace"]:
            marks = [pytest.mark.slow] if name in SLOW else []
            if reason := EXPECTED_FAILURES.get((name, form)):
                marks.append(pytest.mark.xfail(reason=reason, strict=True))
            yield pytest.param(name, form, marks=marks, id=f"{name}-{form}")


@pytest.mark.parametrize("name, form", list(cases()))
def test_verifies(qcdq, tmp_path, name, form):
    model, inputs, others = make(name)
    output = tmp_path / "m.onnx"
    given = tuple(value.clone() for value in inputs)
    if form == "trace":
        source = tmp_path / "m.pt"
        with torch.no_grad():
            module = torch.jit.trace(model, given, check_trace=False)
        module.save(str(source))
        names = [a.name.split(".")[0] for a in module.forward.schema.arguments[1:]]
    else:
        source = tmp_path / "m.pt2"
        program = FORMS[form](export(model, given))
        torch.export.save(program, str(source))
        names = program.graph_signature.user_inputs
    verified(qcdq, source, output, *input_options(tmp_path, names, inputs))
    assert_like_eager(output, model, others)
    output.unlink()  # 500 MB for vgg11
