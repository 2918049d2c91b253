"""The notebook's cells run in their order, and the network learns."""

import json
from pathlib import Path

import jax
import matplotlib
import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "late_phase.ipynb"


@pytest.mark.slow
def test_the_notebook_ends_with_a_network_that_has_learnt(capsys):
    matplotlib.use("agg")
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    found = {}
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        for cell in cells:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), found)
    assert found["scores"].keys() == {"members, mean", "ensemble", "collapsed"}
    assert min(accuracy for accuracy, _ in found["scores"].values()) > 0.95
    assert capsys.readouterr().out.count("accuracy") == 3
