"""Sides of a comparison: deep ensembles and imported networks apart, each side with its name."""

import pytest
from comparison_files import IMPORTED, results, write, write_overview, write_seeds

from lpw_jax.comparison import cost, quantities, report, runs, settings
from lpw_jax.errors import UserError


def gather(*named):
    left_out = []
    return runs.gather([str(name) for name in named], left_out=left_out), left_out


def test_a_changed_config_does_not_pass_for_the_shipped_one(tmp_path):
    changed = ["--config.train.epochs=190"]
    write(tmp_path / "cifar10_bn" / "seed0", results("cifar10_bn", overrides=changed))
    (side,), _ = gather(tmp_path / "cifar10_bn")
    assert side.name == "cifar10_bn, changed"


def test_two_sides_of_one_name_are_told_apart_by_what_differs(tmp_path):
    for epochs in (150, 160):
        changed = [f"--config.train.epochs={epochs}"]
        write(tmp_path / str(epochs) / "mine" / "seed0", results("cifar10_bn", overrides=changed))
    sides, _ = gather(tmp_path / "*" / "mine" / "seed0")
    assert [side.name for side in sides] == ["mine", "mine (train.epochs=160)"]


def test_every_side_has_a_name_of_its_own(tmp_path):
    """These differ from the first in the same two fields, and in a third from one another."""
    values = [(200, 0.1, 0.0005), (190, 0.2, 0.0005), (190, 0.2, 0.0007), (190, 0.2, 0.0009)]
    for number, (epochs, rate, decay) in enumerate(values):
        changed = [
            f"--config.train.epochs={epochs}",
            f"--config.train.learning_rate={rate}",
            f"--config.train.weight_decay={decay}",
            "--config.train.batch_size=100",
        ]
        write(tmp_path / str(number) / "mine" / "seed0", results("cifar10_sgd", overrides=changed))
    names = [side.name for side in gather(tmp_path / "*" / "mine" / "seed0")[0]]
    assert len(set(names)) == 4 and all(name.startswith("mine") for name in names)
    margins = quantities.read_margins([])
    for name in names:
        sides, _ = gather(tmp_path / "*" / "mine" / "seed0")
        found = report.among(sides, baseline=name, margins=margins)["comparisons"]
        assert {each["theirs"] for each in found} == {name}
        assert {each["ours"] for each in found} == set(names) - {name}


def test_sides_that_nothing_tells_apart_are_numbered(tmp_path):
    """Without a release a member's settings change nothing, and the PyTorch files tell none."""
    for number in (2, 3, 4):
        changed = [f"--config.late_phase.num_members={number}"]
        write(tmp_path / f"k{number}" / "mine", results("digits_bn", overrides=[
            *changed, "--config.late_phase.release_epoch=-1"]))  # fmt: skip
        write_overview(tmp_path / f"k{number}" / "torch" / "seed0")
    sides, _ = gather(tmp_path / "*" / "mine", tmp_path / "*" / "torch")
    assert [side.name for side in sides] == [
        "mine", "mine (digits)", "mine (2)", "PyTorch torch", "PyTorch torch (2)",
        "PyTorch torch (3)",
    ]  # fmt: skip


def test_imported_networks_are_a_side_of_their_own(tmp_path):
    for seed in range(2):
        found = results("cifar10_bn", seed=seed)
        write(tmp_path / "ours" / f"seed{seed}", found)
        found["train"] |= {"seconds": None, "images_per_second": None}
        write(tmp_path / "torch" / f"seed{seed}", found | {"imported": IMPORTED})
    (ours, imported), left_out = gather(tmp_path / "ours", tmp_path / "torch")
    assert (len(ours.runs), len(imported.runs), left_out) == (2, 2, [])
    assert (ours.name, imported.name) == ("cifar10_bn", "cifar10_bn, imported")
    assert not ours.remarks and "PyTorch" in imported.remarks[0]
    assert settings.differences(imported.fields, ours.fields) == {"imported": (True, False)}
    assert cost.cost(imported)["device_hours"] is None


def deep_ensemble(name, places, **ensemble_of):
    """results.json of a deep ensemble, whose config is that of its first run."""
    found = results(name) | {"seed": None}
    members = found["views"]["members"][:1] * len(places)
    found["views"] |= {"collapsed": None, "members": members}
    made_of = {"runs": [str(p) for p in places], "seeds": [0, 1], "view": "collapsed",
               "different": []}  # fmt: skip
    return found | {"ensemble_of": made_of | ensemble_of}


def test_deep_ensembles_of_the_same_runs_are_told_apart_by_view(tmp_path):
    places = [tmp_path / "late" / f"seed{seed}" for seed in range(2)]
    for view in ("collapsed", "ensemble"):
        write(tmp_path / view, deep_ensemble("cifar10_bn", places, view=view))
    sides, left_out = gather(tmp_path / "collapsed", tmp_path / "ensemble")
    assert not left_out and [len(side.runs) for side in sides] == [1, 1]
    assert [cost.cost(side)["forward_passes"] for side in sides] == [
        {"ensemble": 2}, {"ensemble": 20}]  # fmt: skip
    assert [side.remarks[0].rpartition(" as ")[2] for side in sides] == [
        "collapsed networks", "ensembles"]  # fmt: skip
    first, second = (side.name for side in sides)
    assert first == "deep ensemble of 2 cifar10_bn" and "ensemble_of.view=ensemble" in second


def test_mixed_deep_ensembles_are_pooled_with_their_like_only(tmp_path):
    late, sgd, other = (tmp_path / name for name in ("late", "sgd", "other"))
    differ = ["late_phase.release_epoch"]
    made = {
        "pure": deep_ensemble("cifar10_bn", [late / "seed0", late / "seed1"]),
        "mixed0": deep_ensemble("cifar10_bn", [late / "seed0", sgd / "seed1"], different=differ),
        "mixed1": deep_ensemble("cifar10_bn", [late / "seed2", sgd / "seed3"], different=differ,
                                seeds=[2, 3]),
        "mixed2": deep_ensemble("cifar10_bn", [late / "seed4", other / "seed5"],
                                different=differ, seeds=[4, 5], view="ensemble"),
    }  # fmt: skip
    for name, found in made.items():
        write(tmp_path / name, found)
    sides, left_out = gather(*(tmp_path / name for name in made))
    assert not left_out
    assert {side.name: len(side.runs) for side in sides} == {
        "deep ensemble of 2 cifar10_bn": 1,
        "mixed deep ensemble of 2 late, sgd": 2,
        "mixed deep ensemble of 2 late, other": 1,
    }
    pure, mixed, unlike = sides
    assert any("differ in late_phase.release_epoch" in line for line in mixed.remarks)
    assert not any("mixed" in line for line in pure.remarks)
    assert cost.cost(unlike)["forward_passes"] == {"ensemble": None}


def test_a_deep_ensemble_is_a_side_of_its_own(tmp_path):
    write_seeds(tmp_path / "sgd", "cifar10_sgd", [96.0, 96.1])
    for number, seeds in enumerate([(0, 1), (2, 3)]):
        found = results("cifar10_sgd") | {"seed": None}
        found["views"] |= {"collapsed": None, "members": found["views"]["members"] * 2}
        found["num_parameters"] *= 2
        found["ensemble_of"] = {"runs": ["a", "b"], "seeds": seeds, "view": "collapsed"}
        write(tmp_path / f"deep{number}", found)
    (single, deep), left_out = gather(tmp_path / "sgd", tmp_path / "deep*")
    assert (single.name, deep.name) == ("cifar10_sgd", "deep ensemble of 2 cifar10_sgd")
    assert len(deep.runs) == 2 and not left_out
    assert deep.view("collapsed") is deep.view("ensemble")
    assert settings.differences(deep.fields, single.fields) == {"networks": (2, 1)}
    assert cost.cost(deep)["forward_passes"] == {"ensemble": 2}
    assert cost.cost(deep)["num_parameters"] == cost.cost(single)["num_parameters"]
    margins = quantities.read_margins([])
    write_seeds(tmp_path / "late", "cifar10_bn", [96.4, 96.5])
    late, deep = gather(tmp_path / "late", tmp_path / "deep*")[0]
    for base, views in ((single, {"ensemble"}), (late, {"collapsed", "ensemble"})):
        (compared,) = report.among([base, deep], baseline=None, margins=margins)["comparisons"]
        assert {row["view"] for row in compared["rows"]} == views


def test_folders_that_differ_in_a_number_are_seeds_of_one_side(tmp_path):
    files = [write_overview(tmp_path / f"s{i}", accuracy=0.96 + i / 1000) for i in range(3)]
    (side,) = runs.gather(files, left_out=[])
    assert side.measured["collapsed"]["accuracy"].sample.n == 3


def test_files_that_are_beside_none_of_ours_are_named(tmp_path):
    write(tmp_path / "cifar10_bn" / "seed0", results("cifar10_bn"))
    ours, _ = gather(tmp_path / "cifar10_bn")
    theirs, _ = gather(*(write_overview(tmp_path / name) for name in ("one", "other")))
    found = report.against(ours, theirs, margins={"points": 0.5})
    (line,) = found["not_compared"]
    assert "is beside none of ours" in line and "performance_overview" in line


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"accuracy": 96.46}, "final_test_acc must be 0 to 1, found 96.46"),
        ({"nll": -4.0}, "final_nll must be 0 to inf, found -4"),
        ({"text": "hello"}, "must be a performance_overview.txt"),
    ],
)
def test_figures_that_cannot_be_are_refused(wrong, words, tmp_path):
    with pytest.raises(UserError, match=words):
        runs.gather([write_overview(tmp_path / "seed0", **wrong)], left_out=[])


def test_other_data_sets_are_not_set_beside_the_pytorch_codes(tmp_path):
    write(tmp_path / "run" / "seed0", results("digits_bn"))
    ours, _ = gather(tmp_path / "run")
    theirs, _ = gather(write_overview(tmp_path / "seed0"))
    with pytest.raises(UserError, match="only of cifar10 or cifar100"):
        report.against(ours, theirs, margins={"points": 0.5})
