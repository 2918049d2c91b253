"""Sections on what the collapsed network takes for what, with the images that it errs on."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lpw_jax.display import html_graphics, html_page
from lpw_jax.measures import mistakes
from lpw_jax.plain_text import html as escape
from lpw_jax.report.absent import NO_PREDICTIONS, absent
from lpw_jax.report.run_files import Run

_FEW = 20  # classes of which all are shown
_PAIRS, _CLASSES = 20, 10
_NO_PICTURES = (
    "The images themselves are not in predictions/pictures.npz; 'python -m lpw_jax.evaluate "
    "--workdir DIR' writes it, where the data are."
)


def classes(run: Run) -> Iterator[str]:
    """Which classes are taken for which, and how often each one is recognised."""
    if not run.test:
        yield absent(NO_PREDICTIONS)
        return
    found, number = run.test["collapsed"], run.results.data.num_classes
    counts = mistakes.confusion(found["label"], found["predicted"], number)
    wrong, among = int(counts.sum() - counts.trace()), int(counts.sum())
    yield html_page.paragraph(
        f"The collapsed network takes {wrong:,} of the {among:,} test images for another class."
    )
    names = _names(run)
    parts = [(_matrix if number <= _FEW else _pairs)(counts, names), _accuracies(counts, names)]
    yield "\n".join(['<div class="beside">', *(f"<div>{part}</div>" for part in parts), "</div>"])


def _names(run: Run) -> list[str]:
    """Of the classes: their numbers where nobody named them."""
    data = run.results.data
    return data.class_names or list(map(str, range(data.num_classes)))


def _matrix(counts: NDArray[np.int64], names: Sequence[str]) -> str:
    note = (
        "Test images by their label (row) and by the class that the network takes them for "
        "(column). Blue: right; orange: wrong, the stronger the more."
    )
    return (
        "<h3>Confusion matrix</h3>\n"
        + html_graphics.heat_map("label", names, counts.tolist())
        + html_page.caption(note)
    )


def _pairs(counts: NDArray[np.int64], names: Sequence[str]) -> str:
    rows = [
        (names[label], names[taken], f"{images:,}", f"{100 * images / counts[label].sum():.1f}")
        for label, taken, images in mistakes.most_confused(counts, _PAIRS)
    ]
    header = ["label", "taken for", "images", "% of the label's"]
    return "<h3>Most confused classes</h3>\n" + html_page.table(header, rows, align="llrr")


def _accuracies(counts: NDArray[np.int64], names: Sequence[str]) -> str:
    """Bars of each class's accuracy, the worst first; of many classes the worst and the best."""
    images = counts.sum(axis=1)
    there = np.flatnonzero(images)
    accuracy = counts.diagonal()[there] / images[there]
    order = np.argsort(accuracy, kind="stable")
    heading, note = "Accuracy by class", ""
    if len(order) > _FEW:
        order = np.concatenate([order[:_CLASSES], order[-_CLASSES:]])
        heading += f": the {_CLASSES} worst and the {_CLASSES} best"
        note = f"The median of the {len(there)} classes is {100 * np.median(accuracy):.2f} %."
    bars = [
        (names[there[i]], float(accuracy[i]), f"{100 * accuracy[i]:.2f}", f"{images[there[i]]:,}")
        for i in order
    ]
    shown = html_graphics.bars(["label", "", "accuracy %", "images"], bars)
    return f"<h3>{heading}</h3>\n{shown}" + (html_page.caption(note) if note else "")


def worst(run: Run) -> Iterator[str]:
    """The images that the network is wrong about and most confident of."""
    if not run.test:
        yield absent(NO_PREDICTIONS)
        return
    found = run.test["collapsed"]
    if found["correct"].all():
        yield html_page.paragraph("The collapsed network is right on all test images.")
        return
    if "test" not in run.pictures:
        yield absent(_NO_PICTURES)
        return
    shown, names = run.pictures["test"], _names(run)
    told = [
        (
            f"{names[found['label'][row]]} taken for {names[found['predicted'][row]]}",
            f"confidence {100 * found['confidence'][row]:.1f}\N{NO-BREAK SPACE}%",
        )
        for row in shown.rows
    ]
    yield html_graphics.pictures(zip(shown.images, told, strict=True))
    yield html_page.caption(
        "The label, what the network takes the image for, and its probability for that. The most "
        "confident mistake comes first."
    )


def outside(run: Run, name: str) -> Iterator[str]:
    """Images of an out-of-distribution set of which the network is most and least certain."""
    shown, found = run.pictures.get(f"ood_{name}"), run.outside[name]["collapsed"]
    if shown is None:
        yield html_page.paragraph(f"{name}: {_NO_PICTURES}")
        return
    entropy, names = found["entropy"][shown.rows], _names(run)
    half = (len(shown.rows) + 1) // 2
    for which, part in (("lowest", slice(None, half)), ("highest", slice(half, None))):
        rows = shown.rows[part]
        told = [
            (f"taken for {names[found['predicted'][row]]}", f"entropy {value:.3f}")
            for row, value in zip(rows, entropy[part], strict=True)
        ]
        if len(rows):
            yield f"<h3>{escape(name)}: images with the {which} entropy, in nats</h3>"
            yield html_graphics.pictures(zip(shown.images[part], told, strict=True))
