"""Every figure of the report: axes are named, what is drawn are the numbers, and it fits."""

from xml.etree import ElementTree

import numpy as np
import pytest

from lpw_jax.display import drawing, hover, html_page, svg
from lpw_jax.measures import metrics
from lpw_jax.report import curves, pictures, predicted


def records(epochs, num_members, *, release=1, every=1, swa=2):
    rng, lines = np.random.default_rng(0), []
    for epoch in range(1, epochs + 1):
        count = num_members if epoch > release >= 0 else 1
        loss, accuracy = rng.uniform(0.01, 2, count), rng.uniform(0.5, 1, count)
        line = {
            "epoch": epoch,
            "learning_rate": 0.1 / epoch,
            "late_phase_learning_rate": 0.2 / epoch,
            "loss": float(loss.mean()),
            "accuracy": float(accuracy.mean()),
            "member_loss": loss.tolist(),
            "member_accuracy": accuracy.tolist(),
        }
        views = {view: {"accuracy": rng.uniform(0.5, 1)} for view in ("collapsed", "ensemble")}
        views["members"] = [{"accuracy": rng.uniform(0.5, 1)} for _ in range(count)]
        views["disagreement"] = 0.25 if count > 1 else None
        if count > 1:
            line["member_distance"] = 0.125
        if epoch % every == 0:
            line["evaluation"] = views
            if 0 < swa <= epoch:
                line["evaluation_swa"] = views
        lines.append(line)
    return lines


def marks(release=1, swa=2):
    return curves.Marks(release=release, swa=swa, annealing=(2, 3))


FIGURES = {
    "loss": lambda r, m: curves.training(r, m, "loss"),
    "accuracy": lambda r, m: curves.training(r, m, "accuracy"),
    "rates": curves.learning_rates,
    "tested": curves.tested,
    "disagreement": curves.disagreement,
    "distance": curves.distance,
}
RUNS = {
    "one epoch": (records(1, 3, release=0, swa=0), marks(0, None)),
    "one member": (records(3, 1, swa=0), marks(None, None)),
    "three": (records(12, 3), marks()),
    "ten": (records(200, 10, release=120, every=10, swa=160), marks(120, 160)),
}


@pytest.fixture(params=RUNS)
def run(request):
    return RUNS[request.param]


@pytest.mark.parametrize("name", FIGURES)
def test_axes_are_named_with_units_and_nothing_is_cut_off(run, name):
    figure = FIGURES[name](*run)
    (axes,) = figure.axes
    assert axes.get_xlabel() == "epoch"
    assert any(unit in axes.get_ylabel() for unit in ("(%", "(nats", "(per minibatch)"))
    assert_readable(figure)
    assert html_page.figure(lambda: figure, "a < b").count('aria-label="a &lt; b"') == 1


def assert_readable(figure):
    figure.draw_without_rendering()
    renderer, whole = figure.canvas.get_renderer(), figure.bbox
    texts = [axes.xaxis.label for axes in figure.axes]
    texts += [axes.yaxis.label for axes in figure.axes]
    texts += [text for found in figure.legends for text in found.get_texts()]
    for text in texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= whole.x0 - 1 and box.x1 <= whole.x1 + 1, text
        assert box.y0 >= whole.y0 - 1 and box.y1 <= whole.y1 + 1, text
        assert text.get_fontsize() >= 9, text
    boxes = [(found.get_window_extent(renderer)) for found in figure.legends]
    boxes += [axes.get_tightbbox(renderer) for axes in figure.axes]
    for number, box in enumerate(boxes):
        for other in boxes[:number]:
            assert not box.padded(-1).overlaps(other)


def lines_of(figure):
    return {line.get_label(): line for axes in figure.axes for line in axes.lines}


def test_curves_are_the_numbers_of_the_epochs():
    lines, at = RUNS["three"]
    loss = lines_of(curves.training(lines, at, "loss"))
    assert [*loss["mean"].get_xdata()] == list(range(1, 13))
    assert [*loss["mean"].get_ydata()] == [line["loss"] for line in lines]
    tested = lines_of(curves.tested(lines, at))
    expected = [100 * line["evaluation"]["ensemble"]["accuracy"] for line in lines]
    assert [*tested["ensemble"].get_ydata()] == pytest.approx(expected)
    assert [*tested["SWA, collapsed"].get_xdata()] == list(range(2, 13))
    distance = lines_of(curves.distance(lines, at))["members, mean"]
    assert set(distance.get_ydata()) == {12.5} and distance.get_xdata()[0] == 2
    assert set(lines_of(curves.disagreement(lines, at))["members"].get_ydata()) == {25}


def test_a_constant_distance_is_inside_its_axes():
    (axes,) = curves.distance(*RUNS["three"]).axes
    assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 12.5 * 1.05


def test_the_members_range_is_from_the_lowest_to_the_highest():
    lines, at = RUNS["three"]
    (axes,) = curves.training(lines, at, "accuracy").axes
    (band,) = (found for found in axes.collections if found.get_label() == "members, range")
    heights = band.get_paths()[0].vertices[:, 1]
    among = [100 * accuracy for line in lines[1:] for accuracy in line["member_accuracy"]]
    assert (heights.min(), heights.max()) == pytest.approx((min(among), max(among)))


def test_release_and_swa_are_marked_between_the_epochs_and_only_if_there_are_any():
    drawn = lines_of(curves.learning_rates(*RUNS["ten"]))
    assert drawn["release"].get_xdata()[0] == 120.5
    assert drawn["start of SWA"].get_xdata()[0] == 159.5
    assert {"release", "start of SWA"}.isdisjoint(lines_of(FIGURES["loss"](*RUNS["one member"])))


def test_marks_are_what_a_config_plans():
    config = {
        "train": {"anneal_start": 100, "anneal_end": 180},
        "late_phase": {"release_epoch": 120},
        "swa": {"start_epoch": 0},
    }
    # Epoch e has the factor of i = e - 1: the first change is in epoch 102, the last in 181.
    assert curves.marks(config) == curves.Marks(release=120, swa=None, annealing=(101, 181))
    config["late_phase"]["release_epoch"], config["swa"]["start_epoch"] = -1, 161
    assert curves.marks(config)[:2] == (None, 161)


def test_losses_that_were_not_finite_leave_a_gap():
    lines = records(4, 3)
    lines[2] |= {"loss": None, "member_loss": [None, 1.0, 1.0], "evaluation": None}
    mean = lines_of(curves.training(lines, marks(), "loss"))["mean"]
    assert [*np.isnan(mean.get_ydata())] == [False, False, True, False]
    assert len(lines_of(curves.tested(lines, marks()))["collapsed"].get_xdata()) == 3


def test_the_reliability_diagram_shows_the_bins_of_the_calibration_error():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.1, 1, 500)
    correct = rng.random(500) < confidence
    figure = predicted.reliability(confidence, correct, "collapsed")
    above, below = figure.axes
    bins = metrics.calibration_bins(confidence, correct)
    accuracy, gap = (bars for bars in above.containers)
    heights = [[bar.get_height() for bar in bars] for bars in (accuracy, gap, *below.containers)]
    np.testing.assert_allclose(heights[0], bins["accuracy"])
    np.testing.assert_allclose(heights[1], bins["confidence"] - bins["accuracy"])
    np.testing.assert_allclose(heights[2], bins["count"] / 5)
    assert above.get_ylabel() and below.get_ylabel() and below.get_xlabel()
    assert_readable(figure)


@pytest.mark.parametrize("views", [("collapsed",), ("collapsed", "ensemble")])
def test_histograms_of_entropy_hold_every_image(views):
    rng = np.random.default_rng(0)
    inside = {view: rng.exponential(0.2, 300) - 1e-5 for view in views}
    outside = {view: rng.uniform(0, np.log(10), 70) for view in views}
    titles = {view: f"SVHN, {view}: AUROC 0.900" for view in views}
    figure = predicted.entropies(inside, outside, titles=titles, num_classes=10)
    for axes in figure.axes:
        shares = [stairs.get_data().values.sum() for stairs in axes.patches]
        assert shares == pytest.approx([100, 100])
        assert axes.get_ylabel() == "images (%)"
    assert figure.axes[-1].get_xlabel() == "entropy of the prediction (nats)"
    assert_readable(figure)


def test_a_figure_is_the_same_text_each_time():
    lines, at = RUNS["three"]
    first, second = (html_page.figure(lambda: curves.tested(lines, at), "x") for _ in range(2))
    assert first == second


def test_what_is_told_covers_the_axes_once_and_stays_inside_the_figure():
    figure = drawing.new_figure()
    axes = figure.subplots()
    axes.set(xlim=(0, 10), xscale="symlog")
    hover.tell(axes, range(1, 10), [letter * 99 for letter in "abcdefghi"], head="epoch {:g}")
    hover.tell(axes, [3, 11], ["more", "beyond the axis"])
    root = ElementTree.fromstring(svg.inline(figure, "x"))
    wide, high = map(float, root.get("viewBox").split()[2:])
    spots = [group for group in root.iter("g") if group.get("class") == "at"]
    lines = [[text.text for text in spot.iter("text")] for spot in spots]
    assert [found[0] for found in lines] == [f"epoch {number}" for number in range(1, 10)]
    assert lines[2][2] == "more" and all(found[1].endswith("a...") for found in lines[:1])
    ends = []
    for spot in spots:
        box, told = (
            {k: float(r.get(k)) for k in ("x", "y", "width", "height")} for r in spot.iter("rect")
        )
        ends += [box["x"], box["x"] + box["width"]]
        assert told["x"] >= 0 and told["x"] + told["width"] <= wide
        assert told["y"] >= 0 and told["y"] + told["height"] <= high
    place = axes.get_window_extent().intervalx * 72 / figure.dpi
    assert [ends[0], ends[-1]] == pytest.approx(place, abs=0.2)
    assert ends[1:-1:2] == pytest.approx(ends[2::2], abs=0.2)


def test_a_table_names_its_cells_for_cards_and_keeps_numbers_whole():
    found = html_page.table(
        ["run <a>", "x"], [["b & c", "1 ± 2 (3)"]], align="lr",
        footer=["all", "4 MB"], cell_class=lambda column, cell: "long" if len(cell) > 5 else "",
    )  # fmt: skip
    assert '<div class="table cards">' in found
    assert '<th data-label="run &lt;a&gt;">b &amp; c</th>' in found
    number = "1 ± 2 (3)".replace(" 2", "\N{NO-BREAK SPACE}2").replace(" (", "\N{NO-BREAK SPACE}(")
    assert f'<td class="right long" data-label="x">{number}</td>' in found
    assert '<td class="right" data-label="x">4\N{NO-BREAK SPACE}MB</td>' in found
    plain = html_page.table((), [["a", "b"]])
    assert "cards" not in plain and "data-label" not in plain


def test_drops_warm_up_and_frozen_weights_are_marks_and_words():
    late_phase = {"release_epoch": 1, "num_members": 2}
    train = {
        "epochs": 9, "anneal_start": 1, "anneal_end": 3, "schedule": "multistep",
        "milestones": [2, 5, 60], "warmup_epochs": 2, "freeze_epoch": 4,
    }  # fmt: skip
    config = {"train": train, "late_phase": late_phase, "swa": {"start_epoch": 0}}
    marks = curves.marks(config)
    assert marks == curves.Marks(release=1, swa=None, milestones=(2, 5, 60), warmup=2, frozen=4)
    assert pictures._schedule(config) == (
        "Release of 2 members at the end of epoch 1; learning rates rise up to epoch 3; "
        "learning rates drop after epoch 2; learning rates drop after epoch 5; "
        "shared weights stay as they are after epoch 4."
    )
