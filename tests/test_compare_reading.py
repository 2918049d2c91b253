"""What a reader meets in a comparison: readable axes, and no more than is known."""

import json

import pytest
from comparison_files import results, write, write_seeds

from lpw_jax.comparison import cost, figures, quantities, report, runs, settings, tables, words
from lpw_jax.errors import UserError


def gather(*named):
    return runs.gather([str(name) for name in named], left_out=[])


def compared(folder):
    write_seeds(folder / "base", "cifar10_sgd", [96.0, 96.1, 96.2])
    write_seeds(folder / "late", "cifar10_bn", [96.3, 96.4, 96.5])
    margins = quantities.read_margins([])
    sides = gather(folder / "base", folder / "late")
    return report.among(sides, baseline=None, margins=margins)


def test_a_huge_interval_does_not_set_the_axis_and_goes_on_in_arrows(tmp_path):
    found = compared(tmp_path)
    first, last = (r for r in found["comparisons"][0]["rows"] if r["quantity"] == "accuracy")
    for arrows in (0, 2):
        _, figure = figures.differences(found)[0]
        (axes,) = figure.axes
        low, high = axes.get_xlim()
        assert high - low < 5 and low < -first["margin"] and high > first["margin"]
        assert sum(line.get_gid() == "beyond" for line in axes.lines) == arrows
        last |= {"low": -53.0, "high": 38.0}


def test_a_table_of_our_own_runs_has_a_baseline(tmp_path):
    table = tables.comparisons(compared(tmp_path))[0]
    assert "baseline" in table.header and "theirs" not in table.header
    assert any(note.startswith("baseline: ") for note in table.notes)


def test_devices_that_old_results_lack_are_those_of_the_environment(tmp_path):
    found = results("cifar10_bn")
    del found["train"]["num_devices"]
    write(tmp_path, found)
    assert cost.cost(gather(tmp_path)[0])["device_hours"] is None
    (tmp_path / "environment.json").write_text(json.dumps({"num_devices": 4}))
    assert cost.cost(gather(tmp_path)[0])["device_hours"] == pytest.approx(8)


@pytest.mark.parametrize(
    ("value", "floor", "text"),
    [(2 / 2001, 2 / 2001, "< 0.001"), (2 / 1001, 2 / 1001, "< 0.002"), (0.5, 2 / 2001, "0.5")],
)
def test_a_p_at_its_floor_is_smaller_than_that(value, floor, text):
    assert words.p_value(value, floor) == text


def test_beside_runs_without_a_release_changed_late_phase_fields_are_told(tmp_path):
    changed = ["--config.late_phase.num_members=4"]
    write(tmp_path / "a", results("cifar10_bn", overrides=changed))
    write(tmp_path / "b", results("cifar10_sgd"))
    (late, base) = gather(tmp_path / "a", tmp_path / "b")
    found = settings.differences(late.fields, base.fields)
    assert found["late_phase.num_members"] == (4, "unused")
    found = settings.differences(base.fields, late.fields)
    assert found["late_phase.num_members"] == ("unused", 4)


def test_what_is_no_run_is_left_out_of_globs_and_of_several_names(tmp_path):
    write(tmp_path / "late" / "seed0", results("cifar10_bn"))
    (tmp_path / "README.md").write_text("# Results")
    (tmp_path / "report").mkdir()
    for named in ([tmp_path / "*"], sorted(tmp_path.iterdir())):
        left_out = []
        (side,) = runs.gather([str(name) for name in named], left_out=left_out)
        assert len(side.runs) == 1 and len(left_out) == 2
        assert any("README.md" in line for line in left_out)
    with pytest.raises(UserError, match=r"README\.md"):
        gather(tmp_path / "README.md")


def test_a_folder_of_folders_of_runs_is_all_of_them(tmp_path):
    write_seeds(tmp_path / "a", "cifar10_bn", [96.4])
    write_seeds(tmp_path / "b", "cifar10_sgd", [96.0])
    assert [side.name for side in gather(tmp_path)] == ["cifar10_bn", "cifar10_sgd"]


def test_a_trained_run_is_told_how_to_be_evaluated(tmp_path):
    place = write(tmp_path / "a", results("cifar10_bn") | {"status": "trained"})
    left_out = []
    runs.gather([place], left_out=left_out)
    assert f"python -m lpw_jax.evaluate --workdir {place}" in left_out[0]
