"""`lpw_jax.report --workdir` of a folder that holds several seeds of one config."""

import pytest
from page_reader import Page
from run_folders import write

from lpw_jax.files import lock
from lpw_jax.report import __main__ as program
from lpw_jax.report import found_runs

SHORT = "evaluate.every_epochs=1"  # changes no training


@pytest.fixture
def folder(tmp_path):
    """Two seeds that are done and one in training."""
    for seed, accuracy in ((0, 96.0), (10, 97.0)):
        write(tmp_path / f"seed{seed}", f"seed={seed}", losses=[2.0, 1.0], finished=accuracy)
    write(tmp_path / "seed2", "seed=2", SHORT, losses=[1.5])
    return tmp_path


def made(folder):
    assert program.main(["--workdir", str(folder)]) == 0
    return Page((folder / "report.html").read_text())


def test_means_are_of_finished_seeds_and_every_seed_is_named_with_its_report(folder):
    with lock.held(folder / "seed2"):
        page = made(folder)
    assert page.title == f"{folder.parent.name}/{folder.name}, 3 seeds"
    assert list(page.sections) == ["Results", "Seeds", "Learning curves", "Cost", "Config"]
    assert "digits, 3 seeds: 2 done, 1 training." in page.sections["Results"]
    means, seeds, *_ = page.tables
    assert means[1][1:3] == ["collapsed", "96.50 ±\xa00.71\xa0(2)"]
    assert [row[0] for row in seeds[1:]] == ["0", "2", "10"]
    assert seeds[1][1:4] == ["seed0", "done", "96.00\xa0%"]
    assert seeds[2][2].startswith("training, epoch 2 of ")
    assert {"seed0/report.html", "seed10/report.html"} < set(page.references)
    assert "seed2/report.html" not in page.references
    assert list(page.images) == ["Training loss of every seed and their mean, over epochs"]
    (here,) = (run for run in found_runs.Folder(folder.parent).look()[1] if folder.name in run)
    assert here == f"{folder.name}/report.html"  # which `--serve` lists


def test_runs_that_are_no_seeds_of_one_config_are_refused(folder, capsys):
    write(folder / "seed3", "seed=3", "train.learning_rate=0.2", losses=[2.0])
    assert program.main(["--workdir", str(folder)]) == 2
    assert (
        "its runs must differ in their seed alone, but differ in train.learning_rate; "
        "lpw_jax.compare compares them"
    ) in capsys.readouterr().err
    assert not (folder / "report.html").exists()


def test_a_run_inside_of_a_run_is_none_of_its_seeds(folder):
    write(folder / "seed0" / "seed1", losses=[2.0])
    assert made(folder / "seed0").title == f"{folder.name}/seed0"
