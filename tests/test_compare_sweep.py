"""Figures over the values of one field: `lpw_jax.compare --sweep`."""

import json
import math
import statistics

import pytest
from comparison_files import results, write, write_seeds
from scipy import stats

from lpw_jax import compare
from lpw_jax.comparison import figures
from lpw_jax.comparison.statistics import paired_by_seed

MEMBERS = "late_phase.num_members"
ACCURACIES = {4: [98.0, 98.4, 98.1], 20: [98.5, 98.6, 98.9], 2: [97.0, 97.5]}


@pytest.fixture
def swept(tmp_path):
    """Folders of runs with 4, 20 and 2 members; the last lacks a seed."""
    folders = []
    for members, accuracies in ACCURACIES.items():
        overrides = [f"--config.{MEMBERS}={members}"]
        folder = tmp_path / f"ablation_num_members_{members}"
        folders.append(write_seeds(folder, "digits_bn", accuracies, overrides=overrides))
    return folders


def reported(*arguments, out):
    assert compare.main([*map(str, arguments), "--out", str(out)]) == 0
    return json.loads((out / "comparison.json").read_text())


def row_of(point, view="collapsed", quantity="accuracy"):
    (row,) = (r for r in point["rows"] if (r["view"], r["quantity"]) == (view, quantity))
    return row


def test_numbers_are_sorted_and_have_mean_standard_error_and_paired_difference(
    swept, tmp_path, capsys
):
    found = reported(*swept, "--sweep", MEMBERS, out=tmp_path / "out")["sweep"]
    assert (found["fields"], found["is_numeric"]) == ([MEMBERS], True)
    assert [point["value"] for point in found["points"]] == [2, 4, 20]
    two, base, twenty = found["points"]
    assert base["name"] == found["base"] and row_of(base)["paired"] is None
    for point, accuracies in ((two, ACCURACIES[2]), (base, ACCURACIES[4])):
        row = row_of(point)
        assert row["mean"] == pytest.approx(statistics.mean(accuracies))
        error = statistics.stdev(accuracies) / math.sqrt(len(accuracies))
        assert row["standard_error"] == pytest.approx(error) and row["n"] == len(accuracies)
    for point, accuracies in ((two, ACCURACIES[2]), (twenty, ACCURACIES[20])):
        paired = row_of(point)["paired"]
        both = accuracies, ACCURACIES[4][: len(accuracies)]
        differences = [one - other for one, other in zip(*both, strict=True)]
        expected = stats.ttest_1samp(differences, 0)
        assert paired["difference"] == pytest.approx(statistics.mean(differences))
        assert paired["p"] == pytest.approx(expected.pvalue)
        ends = paired["low"], paired["high"]
        assert ends == pytest.approx(tuple(expected.confidence_interval(0.95)))
        assert paired["n"] == len(accuracies)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Sweep of {MEMBERS}" in shown and "4 (base)" in shown
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "Over the values" in page and "accuracy, %: mean ± standard error, n = 2 to 3" in page
    assert "| +0.50 " in (tmp_path / "out" / "comparison.md").read_text()


def test_lines_go_through_the_means_at_their_values(swept):
    found = compare.run(swept, swept=[MEMBERS])
    titles, drawn = zip(*figures.sweep(found), strict=True)
    assert [title.partition(":")[0] for title in titles] == ["accuracy, %", "NLL", "ECE"]
    collapsed, ensemble = (line.lines[0] for line in drawn[0].axes[0].containers)
    assert list(collapsed.get_xdata()) == list(ensemble.get_xdata()) == [2, 4, 20]
    for line, view in ((collapsed, "collapsed"), (ensemble, "ensemble")):
        means = [row_of(point, view)["mean"] for point in found["sweep"]["points"]]
        assert list(line.get_ydata()) == means
    assert figures.sweep({}) == []


def test_words_are_categories_in_their_order(tmp_path):
    folders = [
        write_seeds(
            tmp_path / rule, "digits_bn", [98.0], overrides=[f"--config.late_phase.coasting={rule}"]
        )
        for rule in ("none", "every_minibatch", "reference")
    ]
    found = compare.run(folders, swept=["late_phase.coasting"])
    assert [p["label"] for p in found["sweep"]["points"]] == [
        "none", "every_minibatch", "reference",
    ]  # fmt: skip
    assert {row_of(p)["standard_error"] for p in found["sweep"]["points"]} == {None}
    ((_, figure), *_) = figures.sweep(found)
    ticks = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert ticks == ["none", "every_minibatch", "reference"]


def test_a_value_of_several_fields_has_the_name_of_its_folder(tmp_path):
    base = write_seeds(tmp_path / "digits_bn", "digits_bn", [98.0, 98.1])
    changes = ["--config.late_phase.kind=rank_one", "--config.late_phase.patterns=()"]
    rank_one = write_seeds(tmp_path / "rank_one", "digits_bn", [98.2, 98.2], overrides=changes)
    fields = ["late_phase.kind", "late_phase.patterns"]
    found = compare.run([base, rank_one], swept=fields)["sweep"]
    assert [point["label"] for point in found["points"]] == ["digits_bn", "rank_one"]


def test_other_data_is_marked(swept, tmp_path):
    for seed in range(2):
        changed = [f"--config.{MEMBERS}=5"]
        other = results("digits_bn", seed=seed, overrides=changed, note="a part")
        write(tmp_path / "five" / f"seed{seed}", other)
    found = compare.run([*swept, str(tmp_path / "five")], swept=[MEMBERS])["sweep"]
    marks = {point["value"]: point["marks"] for point in found["points"]}
    assert marks[5] and "other data" in marks[5][0] and not marks[20]


@pytest.mark.parametrize(
    ("runs", "fields", "message"),
    [
        ("*", ["late_phase.num_member"], "nearest known one is late_phase.num_members"),
        ("*", ["late_phase"], "late_phase: a section, not a field"),
        ("*", ["evaluate.batch_size"], "must be a field that affects the training"),
        ("*", ["late_phase.sigma"], "late_phase.num_members = 4, not 2"),
        ("*_4", [MEMBERS], "needs runs of two values or more"),
        ("*", [MEMBERS, "--against", "published"], "--sweep and --against cannot be combined"),
    ],
)
def test_mistakes_are_named(runs, fields, message, swept, tmp_path, capsys):
    assert compare.main([str(tmp_path / runs), "--sweep", *fields]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_pairs_need_two_common_seeds_and_a_constant_difference_has_no_interval():
    assert paired_by_seed({0: 1.0, 1: 2.0}, {1: 1.0, 2: 5.0}) is None
    found = paired_by_seed({0: 2.0, 1: 3.0, 7: 0.0}, {1: 2.0, 0: 1.0})
    assert found == {"difference": 1.0, "low": None, "high": None, "p": None, "n": 2}
