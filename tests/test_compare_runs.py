"""What a user names becomes sides: grouped by config, unfinished and repeated runs named."""

import json
import shutil

import pytest
from comparison_files import OVERVIEW, results, write, write_overview, write_seeds

from lpw_jax.comparison import cost, runs, settings
from lpw_jax.errors import UserError


def gather(*named):
    left_out = []
    return runs.gather([str(name) for name in named], left_out=left_out), left_out


def test_seeds_of_one_config_are_one_side(tmp_path):
    write_seeds(tmp_path / "cifar10_bn", "cifar10_bn", [96.3, 96.5, 96.7])
    write_seeds(tmp_path / "other", "cifar10_sgd", [96.1])
    sides, left_out = gather(tmp_path / "*" / "seed*")
    assert [side.name for side in sides] == ["cifar10_bn", "cifar10_sgd"]
    assert not left_out
    measured = sides[0].measured["collapsed"]["accuracy"]
    assert measured.sample.mean == pytest.approx(96.5)
    assert measured.sample.std == pytest.approx(0.2)
    assert measured.sample.n == 3
    assert [seed for seed, _ in measured.values] == [0, 1, 2]


def test_where_data_lies_and_how_it_is_evaluated_does_not_part_seeds(tmp_path):
    here = ["--config.data.dir=/here", "--config.late_phase.member_mode=scan"]
    there = ["--config.data.dir=/there", "--config.evaluate.batch_size=32"]
    write(tmp_path / "a", results("cifar10_bn", seed=0, overrides=here))
    write(tmp_path / "b", results("cifar10_bn", seed=1, overrides=there))
    (side,), _ = gather(tmp_path / "a", tmp_path / "b")
    assert [run.seed for run in side.runs] == [0, 1]


@pytest.mark.parametrize("form", ["folder", "glob", "file", "folder of runs", "other file name"])
def test_a_run_is_found_in_every_form(form, tmp_path):
    folder = tmp_path / "cifar10_bn" / "seed0"
    write(folder, results("cifar10_bn"))
    shutil.copy(folder / "results.json", tmp_path / "mine.json")
    named = {
        "folder": folder,
        "glob": tmp_path / "cifar*" / "seed[0-9]",
        "file": folder / "results.json",
        "folder of runs": folder.parent,
        "other file name": tmp_path / "mine.json",
    }[form]
    (side,), left_out = gather(named)
    assert (side.name, len(side.runs), left_out) == ("cifar10_bn", 1, [])


def test_the_same_run_named_twice_is_one(tmp_path):
    folder = write(tmp_path / "seed0", results("cifar10_bn"))
    (side,), left_out = gather(folder, tmp_path / "*", f"{folder}/results.json")
    assert (len(side.runs), left_out) == (1, [])


def test_seeds_come_in_the_order_of_their_numbers(tmp_path):
    for seed in (10, 9, 1):
        write(tmp_path / f"seed{seed}", results("cifar10_bn", seed=seed))
    (side,), _ = gather(tmp_path)
    assert [run.seed for run in side.runs] == [1, 9, 10]


def test_a_seed_that_comes_twice_is_named_and_left_out(tmp_path):
    first = write(tmp_path / "a", results("cifar10_bn", seed=3, accuracy=96.0))
    second = write(tmp_path / "b", results("cifar10_bn", seed=3, accuracy=97.0))
    (side,), (line,) = gather(first, second)
    assert [run.place for run in side.runs] == [first]
    assert second in line and "seed 3" in line and first in line


def test_unfinished_runs_are_named_and_left_out(tmp_path):
    write(tmp_path / "seed0", results("cifar10_bn"))
    (tmp_path / "seed1").mkdir()
    (tmp_path / "seed1" / "config.json").write_text("{}")
    write(tmp_path / "seed2", results("cifar10_bn", seed=2) | {"status": "trained", "views": None})
    for named in (tmp_path, tmp_path / "seed*"):
        (side,), (no_results, not_evaluated) = gather(named)
        assert [run.seed for run in side.runs] == [0]
        assert "seed1" in no_results and "seed2" in not_evaluated and "trained" in not_evaluated


def test_a_diverged_run_is_named_and_left_out(tmp_path):
    found = results("cifar10_bn")
    found["views"]["collapsed"]["accuracy"] = None
    write(tmp_path / "seed0", found)
    sides, (line,) = gather(tmp_path)
    assert sides == [] and "accuracy" in line


def test_a_quantity_that_one_seed_lacks_is_that_of_the_others(tmp_path):
    write_seeds(tmp_path, "cifar10_bn", [96.3, 96.5])
    found = results("cifar10_bn", seed=2)
    found["views"]["collapsed"]["ood"]["LSUN"] = None
    found["views"]["collapsed"]["ood_mean_auroc"] = None
    write(tmp_path / "seed2", found)
    (side,), _ = gather(tmp_path)
    assert side.measured["collapsed"]["auroc_LSUN"].sample.n == 2
    assert side.measured["collapsed"]["auroc_TIN"].sample.n == 3


def test_hours_that_one_run_lacks_are_not_those_of_the_others(tmp_path):
    write_seeds(tmp_path, "cifar10_bn", [96.3, 96.5])
    found = results("cifar10_bn", seed=2)
    found["train"]["seconds"] = None
    write(tmp_path / "seed2", found)
    assert cost.cost(gather(tmp_path)[0][0])["device_hours"] is None


def test_a_results_file_older_than_a_field_has_its_default(tmp_path):
    found = results("cifar10_bn")
    del found["config"]["train"]["num_microbatches"], found["config"]["parallel"]
    for name in ("num_devices", "device_kind", "peak_memory_bytes", "skipped_images"):
        del found["train"][name]
    write(tmp_path, found)
    (side,), _ = gather(tmp_path)
    assert side.fields == settings.shipped("cifar10_bn")


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("[]", "must be JSON as a run writes it"),
        ("{", "must be JSON as a run writes it"),
        ('{"status": "complete"}', "config: is missing"),
        (json.dumps(results("cifar10_bn") | {"config": {"sede": 1}}), "sede"),
        (json.dumps(results("cifar10_bn") | {"views": {"collapsed": 3}}), "must be JSON as a run"),
    ],
)
def test_a_damaged_results_file_is_named_with_the_rule(content, rule, tmp_path):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results\.json") as caught:
        gather(tmp_path)
    assert rule in str(caught.value)


@pytest.mark.parametrize("name", ["missing", "missing/*", "empty"])
def test_a_name_with_nothing_under_it_is_an_error(name, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=name.split("/")[0]):
        gather(tmp_path / name)


def test_the_pytorch_codes_file_is_read_in_our_units(tmp_path):
    write_overview(tmp_path / "torch" / "seed0", accuracy=0.9646, nll=1400.0)
    write_overview(tmp_path / "torch" / "seed1", accuracy=0.9650, nll=1500.0)
    (side,), left_out = gather(tmp_path / "torch")
    assert (side.kind, side.name, len(side.runs), left_out) == ("pytorch", "PyTorch torch", 2, [])
    assert list(side.measured) == ["collapsed"]
    means = {name: found.sample.mean for name, found in side.measured["collapsed"].items()}
    assert means == pytest.approx(
        {
            "accuracy": 96.48,
            "nll": 0.145,  # a sum over 10,000 test images there
            "auroc_LSUN": 95.1,
            "auroc_TIN": 94.2,
            "auroc_SVHN": 96.3,
            "auroc_CIFAR": 91.4,
            "auroc_mean": 94.25,
        }
    )


def test_pytorch_runs_are_grouped_by_size_length_and_folder(tmp_path):
    for name in ("bn_seed0", "bn_seed1", "swa_seed0", "2020-01-31_12-00-00", "2020-02-01_08-30-00"):
        write_overview(tmp_path / "out" / name)
    sides, _ = gather(tmp_path / "out" / "*")
    assert {side.name: len(side.runs) for side in sides} == {
        "PyTorch bn": 2,
        "PyTorch swa": 1,
        "PyTorch out": 2,
    }


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("finished 1.000000\n", "", "not finished"),
        ("finished 1.000000", "finished 0.000000", "not finished"),
        ("final_nll {nll:f}\n", "", "no final_nll"),
    ],
)
def test_an_unfinished_pytorch_run_is_named_and_left_out(old, new, reason, tmp_path):
    file = write_overview(tmp_path, text=OVERVIEW.replace(old, new))
    sides, (line,) = gather(file)
    assert sides == [] and reason in line and file in line


def test_a_pytorch_figure_that_is_no_number_is_named_with_its_line(tmp_path):
    file = write_overview(tmp_path, accuracy=float("nan"))
    with pytest.raises(UserError, match="line 3: final_test_acc must be a finite number"):
        gather(file)


def test_aurocs_of_unknown_sets_are_left_out_and_said_so(tmp_path):
    write_overview(tmp_path, text=OVERVIEW.replace(" 0.914000", ""))
    (side,), _ = gather(tmp_path)
    assert not [name for name in side.measured["collapsed"] if name.startswith("auroc")]
    assert any("3 AUROCs" in remark for remark in side.remarks)
