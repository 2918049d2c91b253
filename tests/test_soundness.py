"""Weights that no training ends with are refused by name, wherever they come in or would go out."""

import json
import shutil

import numpy as np
import pytest

import lpw_jax
from lpw_jax import evaluate, export
from lpw_jax.data.dataset import check_scale
from lpw_jax.devices.preemption import Preemption
from lpw_jax.errors import UserError
from lpw_jax.files import checkpoint
from lpw_jax.training.progress import Progress
from lpw_jax.training.saver import Saver
from lpw_jax.weights import soundness

KERNEL, VARIANCE = "shared/conv1/kernel", "batch_stats/bn1/var"
POISONS = [
    (KERNEL, np.nan, "finite floating-point numbers"),
    (VARIANCE, -1e-3, "variances >= 0"),
]


def poisoned(weights, name, value):
    """A copy of nested dicts in which one number of the array `name` is `value`."""
    first, _, rest = name.partition("/")
    if rest:
        return weights | {first: poisoned(weights[first], rest, value)}
    array = weights[first].copy()
    array.flat[0] = value
    return weights | {first: array}


def rewrite(folder, weights):
    shutil.rmtree(folder / "weights")
    (folder / "checksums.json").unlink()  # as of an older version
    checkpoint.save_weights(folder / "weights", weights)


@pytest.mark.parametrize(("name", "value", "rule"), POISONS)
def test_poisoned_weights_of_a_run_are_refused_by_name(name, value, rule, run_copy, capsys):
    rewrite(run_copy, poisoned(lpw_jax.load_weights(run_copy), name, value))
    before = (run_copy / "results.json").read_text()
    for load in (lpw_jax.load, lpw_jax.load_weights):
        with pytest.raises(UserError, match=f"weights: must hold {rule}.*; not so: {name}$"):
            load(run_copy)
    output = run_copy / "exported.safetensors"
    assert evaluate.main(["--workdir", str(run_copy)]) == 2
    assert export.main(["--workdir", str(run_copy), "--output", str(output)]) == 2
    assert capsys.readouterr().err.count(f"not so: {name}") == 2
    assert not output.exists() and (run_copy / "results.json").read_text() == before


def test_weights_of_another_type_are_refused_by_name(run_copy):
    weights = lpw_jax.load_weights(run_copy)
    layer = weights["shared"]["conv1"]
    layer["kernel"] = layer["kernel"].astype(np.float16)
    rewrite(run_copy, weights)
    with pytest.raises(UserError, match="conv1.*kernel has type float16 instead of float32"):
        lpw_jax.load(run_copy)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_numbers_must_be_finite_and_have_a_square(value):
    assert soundness.found({"a": {"b": np.array([0, value])}}).endswith("not so: a/b")
    assert soundness.found({"a": np.array([0, 1e18], np.float32), "b": None}) == ""


@pytest.mark.parametrize("where", ["a/batch_stats/x/var", "batch_stats/var", "bn.running_var",
                                   "state/member_model_state/bn/var"])  # fmt: skip
def test_variances_are_known_by_their_names(where):
    assert soundness.found({where: np.array([-1.0])}).endswith(f"variances >= 0; not so: {where}")
    assert soundness.found({"shared/var": np.array([-1.0]), "step": np.array(-1)}) == ""


@pytest.mark.parametrize(("name", "value", "rule"), [
    ("weight", np.nan, "finite"), ("member_model_state/var", -1.0, "variances"),
])  # fmt: skip
def test_a_poisoned_checkpoint_is_set_aside(name, value, rule, tmp_path):
    good = {"state": {"weight": np.ones(3), "member_model_state": {"var": np.ones(3)}}}
    with checkpoint.Checkpoints(tmp_path, keep=3) as checkpoints:
        checkpoints.save(1, good, {})
        checkpoints.save(2, poisoned(good, f"state/{name}", value), {})
        checkpoints.check(wait=True)
        number, _, _, (line,) = checkpoints.restore()
    assert number == 1 and rule in line and f"state/{name}" in line and "damaged-2" in line


def test_nothing_unsound_is_saved_over_a_good_checkpoint(tmp_path, capsys):
    found = {"fault": ""}
    state = {"weight": np.ones(3)}

    class Small(Progress):
        def to_checkpoint(self):
            return {"state": self.state}, {}

    with checkpoint.Checkpoints(tmp_path, keep=1) as checkpoints:
        saver = Saver(
            checkpoints, Preemption(), every_minutes=0, identity={},
            snapshot=lambda: (found["step"], Small(state), found["fault"]),
        )  # fmt: skip
        found["step"] = 1
        saver.save()
        found |= {"step": 2, "fault": "weights after step 2 must hold finite numbers; not so: a"}
        saver.save()
        saver.wait()
        assert checkpoints.newest == 1
    printed = capsys.readouterr()
    assert "not so: a. They are not saved; last good checkpoint: step 1" in " ".join(
        (printed.out + printed.err).split()
    )


@pytest.mark.parametrize(("mean", "std", "rule"), [
    ([0.5], [0.0], "std must be above 0"),
    ([0.5], [-0.1], "std must be above 0"),
    ([np.nan], [0.5], "mean must be 0 to 1"),
    ([None], [0.5], "mean must be 0 to 1"),
    ([0.5], [np.nan], "std must be above 0"),
    ([0.5, 0.5], [0.5], "std must be above 0.*, one for each mean"),
    ([125.3], [63.0], "mean must be 0 to 1"),
    (None, None, "mean must be 0 to 1"),
])  # fmt: skip
def test_images_are_not_normalised_by_impossible_numbers(mean, std, rule):
    with pytest.raises(UserError, match=f"^here: {rule}"):
        check_scale(mean, std, where="here: ")


def test_a_run_whose_results_have_no_mean_is_not_loaded(run_copy):
    file = run_copy / "results.json"
    results = json.loads(file.read_text())
    results["data"]["mean"] = [None] * 3
    file.write_text(json.dumps(results))
    with pytest.raises(UserError, match="results.json: .*data.mean.* must be"):
        lpw_jax.load(run_copy)
