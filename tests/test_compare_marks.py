"""No other experiment is compared in silence; every published figure has its config."""

import importlib.resources
import json
import tomllib
from pathlib import Path

import comparison_files
import pytest
from comparison_files import results, write, write_overview, write_predictions, write_seeds

from lpw_jax.comparison import marks, published, quantities, report, runs, settings
from lpw_jax.errors import UserError

ROOT = Path(__file__).parents[1]
MARGINS = quantities.read_margins([])


def side(*named):
    (found,) = runs.gather([str(name) for name in named], left_out=[])
    return found


def against_published(*named):
    found = report.against([side(*named)], published.sides(), margins=MARGINS)
    return found["comparisons"][0]


def labels(comparison):
    return [mark["label"] for mark in comparison["marks"]]


@pytest.mark.parametrize("figure", published.sides(), ids=lambda figure: figure.name)
def test_every_published_figure_belongs_to_a_config_and_tells_its_source(figure):
    found = figure.measured["collapsed"]["accuracy"].sample
    assert figure.source and figure.dataset == figure.fields["data.name"]
    assert 70 < found.mean < 100
    if figure.remarks != (published.UNKNOWN_SETTINGS,):
        assert figure.fields == settings.shipped(figure.name)
        text = (ROOT / "configs" / f"{figure.name}.py").read_text()
        if "Published: " in text:  # the densenet's and the resnet152's say less
            assert f"{found.mean:.2f} +/- {found.std:.2f}" in text


def test_the_published_figures_are_those_of_the_readme():
    readme = (ROOT / "README.md").read_text()
    stated = {
        figure.name: figure.measured["collapsed"]["accuracy"].sample
        for figure in published.sides()
        if figure.source.startswith("Table") or "imagenet" in figure.name
    }
    for name, sample in stated.items():
        if sample.std is not None:
            assert f"| `{name}` |" in readme
            assert f"{sample.mean:.2f} ± {sample.std:.2f}" in readme


def test_the_facts_are_package_data():
    assert (importlib.resources.files("lpw_jax.comparison") / "published.json").is_file()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packaged = project["tool"]["setuptools"]["package-data"]
    assert packaged["lpw_jax.comparison"] == ["published.json"]


@pytest.mark.parametrize(
    "name", ["cifar10_bn", "cifar100_bn_swa", "cifar10_sgd", "cifar100_swa", "imagenet_resnet50"]
)
def test_a_run_is_compared_with_the_figure_of_its_config(name, tmp_path):
    write(tmp_path, results(name))
    comparison = against_published(tmp_path)
    assert (comparison["ours"], comparison["theirs"]) == (name, name)
    assert labels(comparison) == [] and comparison["differing_settings"] == {}


def test_pretrained_weights_count_by_what_they_are_not_by_where_they_lie(tmp_path):
    found = results("imagenet_resnet50", overrides=["--config.model.pretrained=a/r.safetensors"])
    found["pretrained"] = comparison_files.PRETRAINED | {"sha256": "ab"}
    write(tmp_path, found)
    assert labels(against_published(tmp_path)) == []
    found["pretrained"]["published"] = None
    write(tmp_path, found)
    comparison = against_published(tmp_path)
    assert labels(comparison) == ["other settings"]
    assert comparison["differing_settings"] == {
        "model.pretrained": {"ours": "ab", "theirs": "torchvision"}
    }


def test_a_network_from_scratch_does_not_pass_for_a_fine_tuned_one(tmp_path):
    write(
        tmp_path / "imagenet_resnet50" / "seed0",
        results("imagenet_resnet50") | {"pretrained": None},
    )
    comparison = against_published(tmp_path / "imagenet_resnet50")
    assert comparison["ours"] == "imagenet_resnet50, changed"
    assert labels(comparison) == ["other settings"]
    assert "model.pretrained = '', not 'torchvision'" in comparison["marks"][0]["detail"]
    assert {figure.fields["model.pretrained"] for figure in published.sides()} == {
        "",
        "torchvision",
    }


def test_imported_networks_are_marked_beside_the_published_figure(tmp_path):
    write(tmp_path, results("cifar10_bn") | {"imported": comparison_files.IMPORTED})
    comparison = against_published(tmp_path)
    assert comparison["ours"] == "cifar10_bn, imported"
    assert labels(comparison) == ["imported"]
    assert comparison["rows"][0]["shown"] == "no verdict (imported)"
    assert any("imported from the PyTorch code" in line for line in comparison["remarks"])


def test_a_baseline_whose_settings_nobody_published_is_marked(tmp_path):
    overrides = ["--config.late_phase.release_epoch=-1"]
    write(tmp_path, results("imagenet_resnet50", overrides=overrides))
    comparison = against_published(tmp_path)
    assert comparison["theirs"] == "imagenet_resnet50_finetuned"
    assert labels(comparison) == ["other settings"]


def test_other_data_is_marked_in_the_verdict(tmp_path):
    write_seeds(tmp_path, "cifar10_bn", [96.3, 96.5, 96.4], note="a JPEG copy")
    comparison = against_published(tmp_path)
    (row,) = comparison["rows"]
    assert row["shown"] == f"{row['verdict']} (other data)"
    assert "a JPEG copy" in comparison["marks"][0]["detail"]


def test_other_settings_are_marked_and_listed(tmp_path):
    overrides = ["--config.train.epochs=190", "--config.train.matmul_precision=default"]
    write_seeds(tmp_path, "cifar10_bn", [96.3, 96.5], overrides=overrides)
    comparison = against_published(tmp_path)
    assert comparison["theirs"] == "cifar10_bn"
    assert comparison["rows"][0]["shown"].endswith("(other settings)")
    (mark,) = comparison["marks"]
    assert "train.epochs = 190, not 200" in mark["detail"]
    assert "train.matmul_precision = 'default', not 'highest'" in mark["detail"]


def test_another_coasting_rule_has_a_mark_of_its_own(tmp_path):
    write(tmp_path, results("cifar10_bn", overrides=["--config.late_phase.coasting=none"]))
    assert labels(against_published(tmp_path)) == ["other coasting rule"]


def test_without_a_release_late_phase_fields_do_not_count(tmp_path):
    overrides = ["--config.late_phase.num_members=4", "--config.late_phase.coasting=none"]
    write(tmp_path, results("cifar10_sgd", overrides=overrides))
    assert labels(against_published(tmp_path)) == []


def test_skipped_images_are_marked(tmp_path):
    found = results("imagenet_resnet50")
    found["train"]["skipped_images"] = 7
    write(tmp_path, found)
    comparison = against_published(tmp_path)
    assert labels(comparison) == ["skipped images"] and "7" in comparison["marks"][0]["detail"]


def test_another_method_is_never_the_nearest_figure(tmp_path):
    overrides = ["--config.train.epochs=12", "--config.late_phase.release_epoch=8",
                 "--config.train.anneal_start=4", "--config.train.anneal_end=11"]  # fmt: skip
    write(tmp_path, results("cifar10_bn", overrides=overrides))
    assert against_published(tmp_path)["theirs"] == "cifar10_bn"
    overrides[1] = "--config.late_phase.release_epoch=-1"
    write(tmp_path, results("cifar10_bn", overrides=overrides))
    assert against_published(tmp_path)["theirs"] == "cifar10_sgd"


def test_runs_of_another_dataset_are_refused(tmp_path):
    write(tmp_path, results("digits_bn"))
    with pytest.raises(UserError, match="digits_bn is of digits.*only of cifar10, cifar100"):
        against_published(tmp_path)


def test_the_pytorch_code_is_beside_runs_of_its_size_and_length(tmp_path):
    ours = write_seeds(tmp_path / "ours", "cifar10_bn", [96.4, 96.5])
    # shared + (K + 1) late-phase weights: 36,464,950 + 11 * 24,340
    write_overview(tmp_path / "torch" / "seed0")
    found = marks.marks(side(ours), side(tmp_path / "torch"))
    assert found == []
    write_seeds(tmp_path / "ours", "cifar10_bn", [96.4, 96.5], overrides=[
        "--config.train.epochs=150", "--config.late_phase.num_members=5",
        "--config.train.anneal_end=140"])  # fmt: skip
    (found,) = marks.marks(side(ours), side(tmp_path / "torch"))
    assert found.label == "other settings"
    assert "num_train_epochs = 150, not 200" in found.detail
    assert "num_parameters = 36610990, not 36732690" in found.detail


def test_the_pytorch_code_tested_on_all_test_images(tmp_path):
    write(tmp_path / "ours", results("cifar10_bn", num_test=500))
    write_overview(tmp_path / "torch")
    (found,) = marks.marks(side(tmp_path / "ours"), side(tmp_path / "torch"))
    assert found.label == "other test set" and "500 and 10000" in found.detail


def test_runs_with_other_settings_are_what_is_compared(tmp_path):
    ours = side(write_seeds(tmp_path / "a", "cifar10_bn", [96.4, 96.5]))
    theirs = side(write_seeds(tmp_path / "b", "cifar10_sgd", [96.1, 96.2]))
    comparison = report.among([theirs, ours], baseline=None, margins=MARGINS)["comparisons"][0]
    assert labels(comparison) == []
    assert comparison["differing_settings"] == {
        "late_phase.release_epoch": {"ours": 120, "theirs": -1}
    }


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, []),
        ({"note": "a JPEG copy"}, ["other data"]),
        ({"sha256": "b" * 64}, ["other training images"]),
        ({"sha256": "b" * 64, "test_sha256": None}, ["other data"]),
        ({"sha256": "b" * 64, "test_sha256": "b" * 64}, ["other data", "other test set"]),
        ({"test_sha256": "b" * 64}, ["other test set"]),
        ({"num_test": 500}, ["other test set"]),
    ],
)
def test_runs_on_other_data_are_marked(data, expected, tmp_path):
    theirs = results("cifar10_sgd", test_sha256="a" * 64)
    ours = results("cifar10_bn", test_sha256="a" * 64)
    ours["data"] |= data
    write(tmp_path / "ours", ours)
    write(tmp_path / "theirs", theirs)
    found = marks.marks(side(tmp_path / "ours"), side(tmp_path / "theirs"))
    assert [mark.label for mark in found] == expected


def test_another_split_is_no_other_test_set(tmp_path):
    for name, held_out, digest in (("bn", 0, "a"), ("sgd", 5000, "b")):
        overrides = [f"--config.data.validation_examples={held_out}"]
        found = results(f"cifar10_{name}", overrides=overrides, test_sha256="c" * 64)
        found["data"]["sha256"] = digest * 64
        write(tmp_path / name, found)
        write_predictions(tmp_path / name, seed=0)
    sides = [side(tmp_path / name) for name in ("sgd", "bn")]
    (comparison,) = report.among(sides, baseline=None, margins=MARGINS)["comparisons"]
    assert labels(comparison) == ["other training images"]
    assert comparison["differing_settings"]["data.validation_examples"]["theirs"] == 5000
    assert {row["marks"] for row in comparison["paired"]} == {"other training images"}


def test_seeds_on_different_data_are_marked(tmp_path):
    write(tmp_path / "a" / "seed0", results("cifar10_bn", seed=0))
    write(tmp_path / "a" / "seed1", results("cifar10_bn", seed=1, sha256="b" * 64))
    write(tmp_path / "b", results("cifar10_sgd"))
    (mixed,) = marks.marks(side(tmp_path / "a"), side(tmp_path / "b"))
    assert mixed.label == "other data"


def test_other_ood_images_touch_the_aurocs_only(tmp_path):
    for seed in range(2):
        found = results("cifar10_bn", seed=seed)
        found["data"]["ood_note"] = "TIN: 5,000 of 10,000 images"
        write(tmp_path / "a" / f"seed{seed}", found)
    write_seeds(tmp_path / "b", "cifar10_sgd", [96.1, 96.2])
    sides = [side(tmp_path / "b"), side(tmp_path / "a")]
    (comparison,) = report.among(sides, baseline=None, margins=MARGINS)["comparisons"]
    touched = {row["quantity"] for row in comparison["rows"] if row["marks"]}
    assert touched == {name for name in quantities.BY_NAME if name.startswith("auroc")}


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], {"points": 0.5}),
        (["0.3"], {"points": 0.3}),
        (["nll=0.01", "1"], {"points": 1.0, "nll": 0.01}),
    ],
)
def test_margins_are_read(texts, expected):
    assert quantities.read_margins(texts) == expected


@pytest.mark.parametrize("text", ["x", "0", "-1", "nan", "inf", "nll", "loss=1", "nll=", "=1x"])
def test_a_margin_that_is_none_is_refused(text):
    with pytest.raises(UserError, match="--margin"):
        quantities.read_margins([text])


def test_only_percentages_have_a_margin_of_their_own():
    margins = quantities.read_margins(["auroc=2", "ece=0.001"])
    found = {
        name: quantities.margin(quantity, margins) for name, quantity in quantities.BY_NAME.items()
    }
    assert found["accuracy"] == found["top5_accuracy"] == 0.5
    assert found["auroc_SVHN"] == found["auroc_mean"] == 2
    assert (found["nll"], found["brier"], found["ece"]) == (None, None, 0.001)


def test_the_facts_are_whole():
    facts = json.loads(
        (importlib.resources.files("lpw_jax.comparison") / "published.json").read_text()
    )
    assert len(facts["figures"]) == 16 and len(facts["context"]) == 11
    used = {row["source"] for row in facts["figures"] + facts["context"]}
    assert used == set(facts["sources"])
