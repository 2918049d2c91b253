"""Deep ensembles of finished runs: against scikit-learn, and through the command line."""

import json
import os
import shutil

import numpy as np
import pytest
from short_run import COMMAND
from sklearn import metrics as sk

from lpw_jax import evaluate, main


@pytest.fixture(scope="module")
def trained(finished_run, tmp_path_factory):
    """Two finished runs, seeds 0 and 1."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(finished_run, folder / "seed0")
    flags = ["--workdir", str(folder / "seed1"), "--config.seed=1"]
    assert main.main([*COMMAND, *flags]) == 0
    return folder


@pytest.fixture
def runs(trained, tmp_path):
    """Copies of them, with out-of-distribution predictions: on digits there are none."""
    for seed in (0, 1):
        shutil.copytree(trained / f"seed{seed}", tmp_path / f"seed{seed}")
        (tmp_path / f"seed{seed}" / "checksums.json").unlink()  # as of an older version
        for name, size in (("LSUN", 40), ("TIN", 30), ("SVHN", 20), ("CIFAR", 10)):
            logits = np.random.default_rng(size + seed).standard_normal((2, size, 10))
            np.savez(
                tmp_path / f"seed{seed}" / "predictions" / f"ood_{name}.npz",
                collapsed=logits[0].astype(np.float32),
                ensemble=np.log(softmax(logits[1])).astype(np.float32),
                label=np.full(size, -1),
            )
    return [str(tmp_path / f"seed{seed}") for seed in (0, 1)]


def softmax(logits):
    raised = np.exp(logits.astype(np.float64))
    return raised / raised.sum(-1, keepdims=True)


def ensemble(*arguments):
    return evaluate.main(["--ensemble", *map(str, arguments)])


def read(folder, name="results.json"):
    return json.loads((folder / name).read_text())


def edit(folder, name, **fields):
    path = f"{folder}/{name}"
    with open(path) as file:
        content = json.load(file)
    for field, value in fields.items():
        *sections, leaf = field.split("__")
        part = content
        for section in sections:
            part = part[section]
        part[leaf] = value
    with open(path, "w") as file:
        json.dump(content, file)


def arrays(run, name):
    return dict(np.load(f"{run}/predictions/{name}.npz"))


@pytest.mark.parametrize("view", ["collapsed", "ensemble"])
def test_metrics_are_those_of_the_mean_probabilities(runs, view, tmp_path):
    assert ensemble(*runs, "--output", tmp_path / "out", "--view", view) == 0
    found = read(tmp_path / "out")["views"]["ensemble"]

    def mean(name):
        both = [arrays(run, name)[view] for run in runs]
        return np.mean([softmax(b) for b in both], 0)

    probs, labels = mean("test"), arrays(runs[0], "test")["label"]
    assert found["accuracy"] == sk.accuracy_score(labels, probs.argmax(1))
    assert found["nll"] == pytest.approx(sk.log_loss(labels, probs), rel=1e-6)
    assert found["brier"] == pytest.approx(((probs - np.eye(10)[labels]) ** 2).sum(1).mean())
    bins = np.ceil(probs.max(1) * 15)
    gaps = [
        abs(np.mean((probs.argmax(1) == labels)[bins == b]) - probs.max(1)[bins == b].mean())
        * (bins == b).mean()
        for b in np.unique(bins)
    ]
    assert found["ece"] == pytest.approx(sum(gaps))

    def entropy(p):
        return -(p * np.log(p + 1e-5)).sum(1)

    aurocs = []
    for name in ("LSUN", "TIN", "SVHN", "CIFAR"):
        scores = np.concatenate([entropy(probs), entropy(mean(f"ood_{name}"))])
        is_out = np.arange(len(scores)) >= len(probs)
        aurocs.append(sk.roc_auc_score(is_out, scores))
        own = found["ood"][name]
        assert own["auroc"] == pytest.approx(aurocs[-1])
        assert own["aupr_out"] == pytest.approx(sk.average_precision_score(is_out, scores))
        assert own["aupr_in"] == pytest.approx(sk.average_precision_score(~is_out, -scores))
    assert found["ood_mean_auroc"] == pytest.approx(np.mean(aurocs))
    written = arrays(tmp_path / "out", "test")
    np.testing.assert_allclose(np.exp(written["ensemble"]), probs, atol=1e-6)
    np.testing.assert_array_equal(written["label"], labels)
    assert len(arrays(tmp_path / "out", "ood_SVHN")["ensemble"]) == 20


def test_members_are_the_runs_and_their_costs_add_up(runs, tmp_path, capsys):
    assert ensemble(*runs, "--output", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert "deep ensemble of 2 runs" in shown and "member std" in shown
    assert "\nensemble " in shown and "\ncollapsed " not in shown
    results, (one, two) = read(tmp_path / "out"), (read(tmp_path / f"seed{k}") for k in (0, 1))
    for member, own in zip(results["views"]["members"], (one, two), strict=True):
        for metric, value in member.items():
            assert value == pytest.approx(own["views"]["collapsed"][metric], rel=1e-9)
    assert results["views"]["collapsed"] is None
    assert results["status"] == "complete" and results["seed"] is None
    assert results["ensemble_of"] == {
        "runs": runs, "seeds": [0, 1], "view": "collapsed", "different": []
    }  # fmt: skip
    assert set(one) | {"ensemble_of"} == set(results)
    assert results["num_parameters"] == 2 * one["num_parameters"]
    seconds = one["train"]["seconds"] + two["train"]["seconds"]
    assert results["train"]["seconds"] == seconds
    assert set(results["train"]) == set(one["train"])
    # It may be made again, and counts the weights of members of members.
    assert ensemble(*runs, "--output", tmp_path / "out", "--view=ensemble") == 0
    again, late = read(tmp_path / "out"), one["num_late_phase_parameters"]
    assert again["num_parameters"] == 2 * (one["num_parameters"] + late)


def test_runs_that_saw_other_images_of_a_set_are_not_averaged_on_it(runs, tmp_path, capsys):
    for run, tin in zip(runs, ("0", "1"), strict=True):
        edit(run, "results.json", data__ood_digests={"TIN": tin, "LSUN": "2"})
    assert ensemble(*runs, "--output", tmp_path / "out") == 0
    assert "OOD set TIN is not reported: the runs were" in capsys.readouterr().err
    found = read(tmp_path / "out")["views"]["ensemble"]["ood"]
    assert found["TIN"] is None and found["LSUN"]["max_probability"]["auroc"] > 0


def test_what_differs_between_runs_is_what_differs_between_members(runs, tmp_path):
    assert ensemble(*runs, "--output", tmp_path / "out") == 0
    loaded = [np.load(tmp_path / f"seed{k}" / "predictions" / "test.npz") for k in (0, 1)]
    classes = [arrays["collapsed"].argmax(-1) for arrays in loaded]
    found = read(tmp_path / "out")["views"]["ensemble"]
    assert found["disagreement"] == pytest.approx((classes[0] != classes[1]).mean())
    assert found["mutual_information"] > 0


def test_a_set_that_a_run_lacks_is_null_and_named(runs, tmp_path, capsys):
    (tmp_path / "seed1" / "predictions" / "ood_TIN.npz").unlink()
    assert ensemble(*runs, "--output", tmp_path / "out") == 0
    assert f"OOD set TIN is not reported: {runs[1]}" in capsys.readouterr().err
    found = read(tmp_path / "out")["views"]["ensemble"]
    assert found["ood"]["TIN"] is None and found["ood"]["LSUN"]["auroc"] > 0
    assert found["ood_mean_auroc"] is None


def test_other_configs_are_named_and_refused_unless_asked_for(runs, tmp_path, capsys):
    edit(runs[1], "results.json", config__train__weight_decay=0.25)
    assert ensemble(*runs) == 2
    assert "train.weight_decay: 0.0005 there, 0.25 here" in capsys.readouterr().err
    assert ensemble(*runs, "--mixed", "--output", tmp_path / "out") == 0
    assert read(tmp_path / "out")["ensemble_of"]["different"] == ["train.weight_decay"]


def no_predictions(runs):
    shutil.rmtree(f"{runs[1]}/predictions")


def damaged_predictions(runs):
    with open(f"{runs[1]}/predictions/test.npz", "r+b") as file:
        file.truncate(1000)


def other_images(runs):
    edit(runs[1], "results.json", data__test_sha256="0" * 64)


def other_labels(runs):
    test = arrays(runs[1], "test")
    np.savez(f"{runs[1]}/predictions/test.npz", **test | {"label": test["label"][::-1]})


def trained_only(runs):
    edit(runs[1], "results.json", status="trained", views=None)


def unfinished(runs):
    os.remove(f"{runs[1]}/results.json")


def twice(runs):
    runs[1] = runs[0]


def alone(runs):
    runs.pop()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_predictions, "python -m lpw_jax.evaluate --workdir"),
        (damaged_predictions, "writes it again"),
        (other_images, "data.test_sha256 is"),
        (other_labels, "their labels or number differ"),
        (trained_only, "must have predictions/test.npz"),
        (unfinished, "must hold a finished training"),
        (twice, "are the same run (seed = 0)"),
        (alone, "needs at least two runs"),
    ],
)
def test_runs_that_do_not_go_together_are_refused(runs, spoil, words, tmp_path, capsys):
    spoil(runs)
    assert ensemble(*runs, "--output", tmp_path / "out") == 2
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith("python -m lpw_jax.evaluate: error: ") and words in error
    assert not (tmp_path / "out").exists()


def test_a_runs_own_folder_is_not_overwritten(runs, tmp_path, capsys):
    before = (tmp_path / "seed0" / "results.json").read_bytes()
    assert ensemble(*runs, "--output", runs[0]) == 2
    assert "holds a run; choose another folder" in capsys.readouterr().err
    assert (tmp_path / "seed0" / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--workdir", "a", "--ensemble", "b", "c"],
        ["--workdir", "a", "--mixed"],
        ["--ensemble", "a", "b", "--config.evaluate.batch_size=3"],
    ],
)
def test_flags_that_do_not_go_together_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        evaluate.main(arguments)
    assert end.value.code == 2 and "error: " in capsys.readouterr().err
