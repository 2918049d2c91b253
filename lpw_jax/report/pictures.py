"""The report's sections with figures; without data, a sentence says which setting gives them."""

from collections.abc import Iterator, Mapping
from typing import Any

from lpw_jax.display import html_page
from lpw_jax.files.measured import Outside
from lpw_jax.report import curves, mistakes, predicted
from lpw_jax.report.absent import NO_PREDICTIONS, absent
from lpw_jax.report.run_files import Run


def number(value: float | None) -> str:
    """Four decimal places; '-' for what is not known."""
    return "-" if value is None else f"{value:.4f}"


def learning_curves(run: Run) -> Iterator[str]:
    """Loss, accuracy and rates of the training."""
    if not run.records:
        why = "metrics.jsonl has no epoch yet; training writes one line each."
        yield absent(run.trained_elsewhere or why)
        return
    yield html_page.paragraph(_schedule(run.config))
    marks = curves.marks(run.config)
    yield html_page.figures(
        [
            html_page.figure(
                lambda: curves.training(run.records, marks, "loss"),
                "Training loss over epochs: mean, and range of the members",
            ),
            html_page.figure(
                lambda: curves.training(run.records, marks, "accuracy"),
                "Training accuracy over epochs: mean, and range of the members",
            ),
            html_page.figure(
                lambda: curves.learning_rates(run.records, marks),
                "Learning rates of shared and late-phase weights over epochs",
            ),
        ]
    )


def _schedule(config: Mapping[str, Any]) -> str:
    """What the marks in the figures mean, in words."""
    late_phase, marks = config["late_phase"], curves.marks(config)
    number = late_phase["num_members"]
    members = f"{number} members" if number > 1 else "one member"
    if marks.release is None:
        words = ["No release: one network is trained (late_phase.release_epoch = -1)"]
    elif marks.release == 0:
        words = [f"{members.capitalize()} from the start"]
    else:
        words = [f"Release of {members} at the end of epoch {marks.release}"]
    if marks.warmup is not None:
        words.append(f"learning rates rise up to epoch {marks.warmup + 1}")
    if marks.annealing:
        start, end = marks.annealing
        ends = f"until epoch {end}" if end <= config["train"]["epochs"] else "to the end"
        words.append(f"learning rates fall after epoch {start} {ends}")
    for epoch in marks.milestones:
        if epoch < config["train"]["epochs"]:
            words.append(f"learning rates drop after epoch {epoch}")
    if marks.frozen is not None:
        words.append(f"shared weights stay as they are after epoch {marks.frozen}")
    if marks.swa is not None:
        how = f"a moving average of decay {marks.decay:g} takes" if marks.decay else "SWA averages"
        words.append(f"{how} the weights from epoch {marks.swa} on")
    return "; ".join(words) + "."


def accuracies(run: Run) -> Iterator[str]:
    """Accuracy on the test set as training went on."""
    if not any(record.get("evaluation") for record in run.records):
        yield absent(
            "The test set was not evaluated during training; evaluate.every_epochs = N does so at "
            "the end of every N-th epoch."
        )
        return
    marks = curves.marks(run.config)
    what = (
        f"Test {'bits per character' if run.is_text else 'accuracy'} of the members, their "
        "ensemble and the collapsed network, and SWA's where there are any, over "
    )
    drawn = [html_page.figure(lambda: curves.tested(run.records, marks), what + "all epochs")]
    # After the release, or in the second half, views differ by less than the whole curve shows.
    later = [r for r in run.records if r["epoch"] > (marks.release or len(run.records) // 2)]
    if len(later) < len(run.records) and sum(bool(r.get("evaluation")) for r in later) > 1:
        drawn.append(
            html_page.figure(lambda: curves.tested(later, marks), what + "the later epochs")
        )
    yield html_page.figures(drawn)


def members(run: Run) -> Iterator[str]:
    """How different the members are, as training went on."""
    marks = curves.marks(run.config)
    drawn, missing = [], []
    if any(record.get("member_distance") is not None for record in run.records):
        drawn.append((curves.distance, "Relative distance of the members to their mean"))
    else:
        missing.append("Runs of several members record how far apart they are after the release.")
    if any(curves.disagreement_of(record) is not None for record in run.records):
        drawn.append((curves.disagreement, "Fraction of images on which two members differ"))
    elif not run.is_text:
        missing.append("With evaluate.every_epochs = N runs record how often two members differ.")
    if drawn:
        yield html_page.figures(
            html_page.figure(lambda draw=draw: draw(run.records, marks), f"{alt}, over epochs")
            for draw, alt in drawn
        )
    yield from map(absent, missing)


def calibration(run: Run) -> Iterator[str]:
    """Reliability diagrams."""
    if not run.test:
        yield absent(NO_PREDICTIONS)
        return
    yield html_page.figures(
        html_page.figure(
            lambda view=view, found=found: predicted.reliability(
                run.test[view]["confidence"],
                run.test[view]["correct"],
                f"{view}: ECE {number(found.ece)}",
            ),
            f"Reliability diagram of the {view} predictions: accuracy against confidence",
        )
        for view, found in run.distinct_views.items()
    )


def outside(run: Run) -> Iterator[str]:
    """How well images of other kinds are told apart from those of the test set."""
    views = run.distinct_views if run.views else {}
    ood_sets = next(iter(views.values())).ood if views else ()
    scored = [name for name in ood_sets if all(view.ood.get(name) for view in views.values())]
    if not scored:
        yield absent(
            "No out-of-distribution set was evaluated; for CIFAR, data.ood_dir = DIR says where "
            "they are (data.dir for the other CIFAR)."
        )
        return
    scores = {
        f"{name}, {view}": _ood_scores(found.ood[name])
        for name in scored
        for view, found in views.items()
    }
    columns = list(dict.fromkeys(title for found in scores.values() for title in found))
    rows = [[row, *(number(found.get(t)) for t in columns)] for row, found in scores.items()]
    yield html_page.table(["set, view", *columns], rows, align="l" + "r" * len(columns))
    if not run.outside or not run.test:
        note = "The histograms are drawn from predictions/, which is not in this folder."
        yield html_page.paragraph(note)
        return
    yield html_page.figures(
        html_page.figure(
            lambda name=name, predicted_of=predicted_of: predicted.entropies(
                {view: run.test[view]["entropy"] for view in views},
                {view: predicted_of[view]["entropy"] for view in views},
                titles={
                    view: f"{name}, {view}: AUROC {found.ood[name].auroc:.3f}"
                    for view, found in views.items()
                },
                num_classes=run.results.data.num_classes,
            ),
            f"Histograms of entropy on the test set and on {name}",
        )
        for name, predicted_of in run.outside.items()
        if name in scored
    )
    for name in run.outside:
        yield from mistakes.outside(run, name)


def _ood_scores(found: Outside) -> dict[str, float | None]:
    """Measures by entropy, then the AUROC by each other score that there is."""
    titles = {"auroc": "AUROC", "aupr_in": "AUPR in", "aupr_out": "AUPR out", "fpr95": "FPR95"}
    others = {
        "max_probability": "AUROC, largest probability",
        "energy": "AUROC, energy",
        "mutual_information": "AUROC, mutual information",
    }
    by_entropy = {title: getattr(found, name) for name, title in titles.items()}
    rest = {title: score.auroc for n, title in others.items() if (score := getattr(found, n))}
    return by_entropy | rest
