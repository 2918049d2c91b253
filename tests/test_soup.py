"""Soups: `lpw_jax.evaluate --soup` averages the weights of finished runs."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

from lpw_jax import evaluate, loading
from lpw_jax.comparison import runs as runs_lib
from lpw_jax.evaluation import soup as soup_lib
from lpw_jax.files.workdir import Workdir

PRETRAINED = {
    "model": "resnet50", "sha256": "ab" * 32, "published_accuracy": 0.76,
    "accuracy": 0.5, "nll": 0.5, "brier": 0.5, "ece": 0.1,
}  # fmt: skip


def edited(folder, **fields):
    """The folder with other fields in its results.json, and its config.json in step."""
    (folder / "checksums.json").unlink(missing_ok=True)  # as of an older version
    file = folder / "results.json"
    found = json.loads(file.read_text())
    for path, value in fields.items():
        *sections, name = path.split("__")
        inner = found
        for section in sections:
            inner = inner[section]
        inner[name] = value
    file.write_text(json.dumps(found))
    (folder / "config.json").write_text(json.dumps(found["config"]))


@pytest.fixture
def fine_tuned(finished_run, tmp_path):
    """Two runs that say they began with the same weights; the second's weights are moved."""
    rng = np.random.default_rng(0)
    for seed in (0, 1):
        folder = tmp_path / f"seed{seed}"
        shutil.copytree(finished_run, folder)
        if seed:
            weights = jax.tree.map(
                lambda leaf: (leaf * rng.uniform(0.9, 1.1, leaf.shape)).astype(leaf.dtype),
                Workdir(folder).load_weights(),
            )
            Workdir(folder).save_weights(weights)
        edited(folder, seed=seed, config__seed=seed, pretrained=PRETRAINED)
    return [tmp_path / "seed0", tmp_path / "seed1"]


def soup(*arguments):
    return evaluate.main(["--soup", *map(str, arguments)])


def test_a_soup_is_the_mean_of_the_collapsed_networks(fine_tuned, tmp_path):
    output = tmp_path / "soup"
    soup_lib.write(list(map(str, fine_tuned)), output=str(output))
    one, other, mixed = (loading.load(folder).collapsed for folder in (*fine_tuned, output))

    def check(a, b, c):
        np.testing.assert_allclose(c, (np.float64(a) + np.float64(b)) / 2, rtol=1e-6)

    jax.tree.map(check, one, other, mixed)


@pytest.mark.slow
def test_a_soup_is_evaluated_as_a_run_and_is_a_side_of_its_own(fine_tuned, tmp_path):
    output = tmp_path / "soup"
    assert soup(*fine_tuned, "--output", output) == 0
    found = json.loads((output / "results.json").read_text())
    assert found["status"] == "complete" and found["seed"] is None
    assert found["soup_of"] == {
        "runs": [str(folder) for folder in fine_tuned], "seeds": [0, 1], "different": [],
    }  # fmt: skip
    assert len(found["views"]["members"]) == 1
    assert found["views"]["collapsed"]["accuracy"] == found["views"]["ensemble"]["accuracy"]
    assert (output / "predictions/test.npz").exists() and (output / "report.html").exists()
    sides = runs_lib.gather([str(folder) for folder in (*fine_tuned, output)], left_out=[])
    assert [len(side.runs) for side in sides] == [2, 1]
    assert sides[1].name.startswith("soup of 2 ")
    assert soup(*fine_tuned, "--output", output) == 2  # nothing is written over


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pretrained": None}, "must begin with the pretrained weights of"),
        ({"pretrained__sha256": "cd" * 32}, "must begin with the pretrained weights of"),
        ({"config__model__width": 2}, "must have the network of .*model.width: 1 there, 2 here"),
        ({"data__num_classes": 12}, "data.num_classes is 10 there and 12 here"),
        ({"config__seed": 0}, "the same run as"),
    ],
)
def test_runs_that_do_not_go_together_are_refused(fields, message, fine_tuned, tmp_path, capsys):
    edited(fine_tuned[1], **fields)
    assert soup(*fine_tuned, "--output", tmp_path / "soup") == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
    assert not (tmp_path / "soup").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{0}", "--output", "{0}/../soup"], "needs at least two runs, got one"),
        (["{0}", "{1}", "--output", "{0}"], "must be a new or empty folder"),
        (["{0}", "{0}/nothing", "--output", "{0}/../soup"], "nothing"),
    ],
)
def test_other_mistakes_are_named(arguments, message, fine_tuned, capsys):
    assert soup(*(argument.format(*fine_tuned) for argument in arguments)) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_flags_are_checked(capsys):
    with pytest.raises(SystemExit):
        soup("a", "b")
    assert "--soup needs --output" in capsys.readouterr().err
