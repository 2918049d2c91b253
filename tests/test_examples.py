"""The examples run, and find what a broken one would miss."""

import importlib
from pathlib import Path

import jax
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
HELPERS = {"show", "plots", "loss_plots"}
SCRIPTS = sorted({path.stem for path in EXAMPLES.glob("*.py")} - HELPERS)
PNG = b"\x89PNG"


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs an example quickly, as a user's program does, and says what it found."""
    monkeypatch.syspath_prepend(EXAMPLES)

    def run(name):
        plot = tmp_path / "plot.png"
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            found = importlib.import_module(name).main(["--quick", "--plot", str(plot)])
        assert plot.read_bytes().startswith(PNG)
        printed = capsys.readouterr().out
        assert all(name in printed for name in found)
        return found

    return run


def accuracies(found):
    return {name: float(score["accuracy"].mean()) for name, score in found.items()}


@pytest.mark.parametrize(
    ("name", "least"),
    [
        pytest.param("nnx_network", 0.95, marks=pytest.mark.slow),
        pytest.param("linen_transformer", 0.8, marks=pytest.mark.slow),
    ],
)
def test_late_phase_and_plain_classifiers_learn(run, name, least):
    found = run(name)
    assert {name: len(score["loss"]) for name, score in found.items()} == {
        "plain": 1, "members": 5, "ensemble": 1, "collapsed": 1,
    }  # fmt: skip
    assert min(accuracies(found).values()) > least


@pytest.mark.slow
def test_members_of_a_regression_learn(run):
    pytest.importorskip("equinox")
    found = run("equinox_regression")
    assert found.keys() == {"plain", "members", "ensemble", "collapsed"}
    # The wave's standard deviation is 0.7, the noise's 0.1.
    assert max(view["rmse"] for view in found.values()) < 0.4
    assert found["ensemble"]["negative_log_density"] < 0.2


@pytest.mark.slow
def test_low_rank_members_learn_more_than_the_head(run):
    found = accuracies(run("low_rank_finetuning"))
    assert found.keys() == {"head alone", "everything", "members", "ensemble", "collapsed"}
    assert found["everything"] > 0.8
    assert min(found["members"], found["ensemble"], found["collapsed"]) > 0.4


@pytest.mark.parametrize("name", SCRIPTS)
def test_examples_are_short(name):
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 80
