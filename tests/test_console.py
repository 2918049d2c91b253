"""What the terminal shows, read back from the text that rich renders at 80 columns."""

import io

import comparison_files
import numpy as np
import pytest
from rich.console import Console

from lpw_jax.display import console, results_report
from lpw_jax.display.progress_bar import TrainProgress
from lpw_jax.files import described
from lpw_jax.files.results import Results
from lpw_jax.measures import parameters

OOD_SETS = ("LSUN", "TIN", "SVHN", "CIFAR")


@pytest.fixture
def paper():
    """A terminal of 80 columns that is a file: no colour, no bar."""
    return Console(file=io.StringIO(), width=80, highlight=False, force_terminal=False)


@pytest.fixture
def screen():
    return Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)


def text_of(terminal, renderable=None):
    if renderable is not None:
        terminal.print(renderable)
    text = terminal.file.getvalue()
    assert terminal.is_terminal or all(len(line) <= 80 for line in text.splitlines())
    return text


def row(text, name):
    """The cells of the only row that starts with `name`."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(name)]
    return line.strip().removeprefix(name).split()


def view(accuracy, *, aurocs=None, mean=None):
    figures = {"accuracy": accuracy, "nll": 0.12345, "brier": 0.05, "ece": 0.0123}
    if aurocs is not None:
        ood = {
            name: None if auroc is None else {"auroc": auroc}
            for name, auroc in zip(OOD_SETS, aurocs, strict=True)
        }
        figures |= {"ood": ood, "ood_mean_auroc": mean}
    return figures


def results(collapsed, ensemble, members, note="Handwritten [digits]."):
    views = {"collapsed": collapsed, "ensemble": ensemble, "members": members}
    found = comparison_files.results("digits_bn", note=note) | {"views": views}
    found["data"]["ood_note"] = None
    return described.read(Results, found)


def test_config_shows_every_field_and_leaves_out_empty_ones(paper):
    config = {
        "seed": 3,
        "model": {"name": "wide_resnet", "depth": 28},
        "data": {"dir": "", "note": None, "flip": False, "cutout": 0},
        "late_phase": {"patterns": ("bn.*/[scale]", "head")},
        "empty": {},
    }
    console.print_config(config, console=paper)
    text = text_of(paper)
    assert row(text, "run") == ["seed=3"]
    assert row(text, "model") == ["name=wide_resnet", "depth=28"]
    assert row(text, "data") == ["flip=False", "cutout=0"]
    assert row(text, "late_phase") == ["patterns=bn.*/[scale]", "head"]
    assert "empty" not in text


def test_config_wider_than_the_terminal_wraps(paper):
    console.print_config({"data": {"dir": "/a" * 100}}, console=paper)
    assert "".join(text_of(paper).split()) == "datadir=" + "/a" * 100


def test_parameter_table_counts_one_members_weights(paper):
    shared = {"conv": {"kernel": np.zeros((3, 3, 3, 16))}, "block": {"conv": np.zeros(1_000)}}
    late = {"block": {"bn": {"scale": np.zeros((4, 30))}}, "head": {"bias": np.zeros((4, 10))}}
    text = text_of(paper, console.parameter_table(parameters.counts(shared, late)))
    assert row(text, "conv") == ["432", "0", "432", "0.00", "%"]
    assert row(text, "block") == ["1,000", "30", "1,030", "2.91", "%"]
    assert row(text, "head") == ["0", "10", "10", "100.00", "%"]
    assert row(text, "total") == ["1,432", "40", "1,472", "2.72", "%"]


def test_parameter_table_works_without_late_phase_weights(paper):
    text = text_of(paper, console.parameter_table(parameters.counts({"conv": np.zeros(5)}, {})))
    assert row(text, "total") == ["5", "0", "5", "0.00", "%"]


@pytest.mark.parametrize("other", [np.zeros((3, 2)), np.zeros(())])
def test_parameter_table_refuses_leaves_that_disagree_on_the_members(other):
    with pytest.raises(ValueError, match="member axis.*head/bias"):
        parameters.counts({}, {"bn": np.zeros((4, 2)), "head": {"bias": other}})


def test_results_show_views_members_and_missing_sets(paper):
    aurocs = (0.95125, 0.9, None, 0.5)
    members = [view(0.96), view(0.97), view(0.98)]
    text = text_of(
        paper,
        results_report.results_table(
            results(view(0.9646, aurocs=aurocs), view(1.0, aurocs=aurocs, mean=0.75), members)
        ),
    )
    figures = ["0.1235", "0.0500", "0.0123"]
    assert row(text, "collapsed") == ["96.46", *figures, "0.951", "0.900", "-", "0.500", "-"]
    assert row(text, "ensemble") == ["100.00", *figures, "0.951", "0.900", "-", "0.500", "0.750"]
    assert row(text, "member mean") == ["97.00", *figures, *"-----"]
    assert row(text, "member std") == ["1.00", "0.0000", "0.0000", "0.0000", *"-----"]
    assert row(text, "view")[-5:] == [*OOD_SETS, "mean"]


def test_results_without_ood_sets_have_no_auroc_and_one_member_no_deviation(paper):
    found = results(view(0.5), view(0.5), [view(0.5)], note=None)
    text = text_of(paper, results_report.results_table(found))
    assert "AUROC" not in text
    assert row(text, "collapsed") == row(text, "member mean")
    assert row(text, "member std") == ["-"] * 4
    assert list(results_report.further_lines(found)) == ["Test set of digits"]
    assert list(results_report.in_words(found)) == [
        "The network is right on 50.00 % of the test set."
    ]


def test_results_tell_how_members_differ_and_temperatures_if_these_were_measured(paper):
    scaled = {"temperature": 1.23456, "nll": 0.1, "brier": 0.04, "ece": 0.011}
    collapsed = view(0.5) | {"temperature_scaled": scaled}
    ensemble = view(0.45) | {"mutual_information": 0.012345, "disagreement": 0.0213}
    ensemble |= {"temperature_scaled": None}  # none was found
    members = [view(0.4), view(0.5)]
    found = results(collapsed, ensemble, members)
    data, between, temperatures = results_report.further_lines(found)
    (words,) = results_report.in_words(found)
    assert data == "Test set of digits: Handwritten [digits]."
    assert between == (
        "Two members disagree on 2.13 % of the images; mutual information 0.0123 nats"
    )
    assert temperatures == (
        "At validation's temperature: collapsed T = 1.235, NLL 0.1000, ECE 0.0110"
    )
    assert words == (
        "The 2 members are right on 45.00 % of the test set on average. Collapsed into one network "
        "they are right on 50.00 % (+5.00); as an ensemble, at 2 times the cost, on 45.00 %."
    )


def record(epoch, phase="tied", **more):
    figures = {"loss": 1.23456, "accuracy": 0.45, "images_per_second": 1234.6}
    return {"epoch": epoch, "phase": phase, **figures, **more}


def test_a_log_holds_one_line_an_epoch_and_no_bar(paper):
    with TrainProgress(total_steps=20, batch_size=8, epochs=12, console=paper) as progress:
        for epoch in (1, 2):
            for _ in range(10):
                progress.update(1, epoch=epoch, phase="tied")
            progress.epoch_line(record(epoch, member_accuracy=[0.45]))
        progress.epoch_line(record(12, "late", member_accuracy=[0.44, 0.46, 0.45]))
    assert text_of(paper).splitlines() == [
        "epoch  1/12  tied  loss 1.2346  accuracy 45.00 %  1235 images/s",
        "epoch  2/12  tied  loss 1.2346  accuracy 45.00 %  1235 images/s",
        "epoch 12/12  late  loss 1.2346  accuracy 45.00 % (44.00..46.00)  1235 images/s",
    ]


def test_a_run_on_a_text_counts_sequences(paper, screen):
    task = {"total_steps": 20, "batch_size": 8, "epochs": 3, "examples": "sequences"}
    with TrainProgress(**task, console=paper) as progress:
        progress.epoch_line(record(1))
    assert text_of(paper).endswith("1235 sequences/s\n")
    with TrainProgress(**task, console=screen) as progress:
        for _ in range(3):
            progress.update(1, epoch=1, phase="tied")
    assert " seq/s" in text_of(screen)


def test_a_moving_average_is_not_called_swa(paper):
    views = {"collapsed": {"accuracy": 0.5}, "ensemble": {"accuracy": 0.75}}
    task = {"total_steps": 20, "batch_size": 8, "epochs": 3, "averages": "EMA"}
    with TrainProgress(**task, console=paper) as progress:
        progress.epoch_line(record(1, "SWA", evaluation_swa=views))
    line = paper.file.getvalue()
    assert line.startswith("epoch 1/3  EMA   loss") and "test: EMA collapsed" in line
    assert "SWA" not in line


def test_what_was_evaluated_of_an_epoch_is_shown_in_its_line(paper):
    views = {"collapsed": {"accuracy": 0.5}, "ensemble": {"accuracy": 0.75}}
    with TrainProgress(total_steps=20, batch_size=8, epochs=3, console=paper) as progress:
        progress.epoch_line(record(1, evaluation=None))
        progress.epoch_line(record(2, evaluation=views))
        progress.epoch_line(record(3, evaluation=None, evaluation_swa=views))
    first, second, third = paper.file.getvalue().splitlines()
    assert "test" not in first
    assert second.endswith("  test: collapsed 50.00 %  test: ensemble 75.00 %")
    assert third.endswith("images/s  test: SWA collapsed 50.00 %  test: SWA ensemble 75.00 %")


def test_a_terminal_shows_the_bar_with_epoch_phase_speed_and_loss(screen):
    with TrainProgress(total_steps=40, batch_size=128, epochs=200, console=screen) as progress:
        progress.update(10, epoch=120, phase="late", loss=2.5)
        progress.update(10, epoch=120, phase="late")
        progress.epoch_line(record(120))
    bar = text_of(screen).splitlines()[-2]  # the last line shows the cursor again
    for words in ("epoch 120/200 late", " 50% ", " img/s", "loss 1.2346", "ETA "):
        assert words in bar
    assert "images/s" not in text_of(screen)


def test_an_error_during_training_passes_through_and_gives_the_terminal_back(screen):
    with (
        pytest.raises(KeyboardInterrupt),
        TrainProgress(total_steps=4, batch_size=8, epochs=1, console=screen),
    ):
        raise KeyboardInterrupt
    assert text_of(screen).rstrip("\n").endswith("\x1b[?25h")  # the cursor is shown again


def test_a_number_that_is_null_is_a_dash(paper):
    members = [view(0.5) | {"nll": None}, view(0.5)]
    text = text_of(paper, results_report.results_table(results(view(0.5), view(0.5), members)))
    assert "-" in row(text, "member mean") and "50.00" in row(text, "member mean")
