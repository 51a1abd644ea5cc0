# Fixtures of the benchmark report's tests; the rows are made up (made_up_rows.py).
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "bench"))

from made_up_rows import KERNELS, OPS, QAT, write_raw


@pytest.fixture
def raw(tmp_path):
    return write_raw(tmp_path / "raw", ops=OPS, qat_step=QAT, kernels=KERNELS)
