# The Python of README.md and docs/ runs as it stands there: each page's blocks in their order, in
# one namespace, with the names that the page's text takes for given.
import pathlib
import re

import pytest
import torch

import qcdq

pytestmark = pytest.mark.filterwarnings("ignore")
ROOT = pathlib.Path(__file__).resolve().parents[2]


def a_net():
    torch.manual_seed(0)
    net = torch.nn.Sequential(qcdq.nn.QuantLinear(8, 4, input=qcdq.int8()), qcdq.nn.QuantReLU())
    x = torch.randn(2, 8)
    net(x)
    return {"net": net.eval(), "x": x, "torch": torch}


def a_net_of_torch_ao():
    pt2e = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e")
    from test_pt2e import Net, x86_quantizer
    from test_torch_ao import SHAPE, eager

    return {
        "model": eager(qat=True),
        "x": torch.randn(SHAPE),
        "torch": torch,
        "net": Net().eval(),
        "quantizer": x86_quantizer(),
        "prepare_pt2e": pt2e.prepare_pt2e,
        "convert_pt2e": pt2e.convert_pt2e,
    }


PAGES = {  # page: how many blocks it has, what they take for given
    "README.md": (1, dict),
    "docs/python.md": (4, a_net),
    "docs/brevitas.md": (1, dict),
    "docs/torch_ao.md": (3, a_net_of_torch_ao),
}


@pytest.mark.parametrize("page", PAGES)
def test_python_of_the_page_runs(page, tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.S | re.M)
    count, given = PAGES[page]
    assert len(blocks) == count
    monkeypatch.chdir(tmp_path)
    names = given()
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
    assert list(tmp_path.iterdir())
