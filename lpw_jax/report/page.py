"""The page that tells of one run: report.html."""

from collections.abc import Iterator

from lpw_jax.display import console, html_page, results_report
from lpw_jax.files import described
from lpw_jax.files.environment import Environment
from lpw_jax.files.results import Train
from lpw_jax.files.workdir import Workdir
from lpw_jax.report import absent as absences
from lpw_jax.report import mistakes, pictures, run_files, surface
from lpw_jax.report.absent import Absent, absent
from lpw_jax.report.run_files import Run

# Sections whose place another one has where the network reads a text.
_OF_TEXT = {
    "Accuracy on the way": "Bits per character on the way",
    "Calibration": "Generated text",
}
_OF_IMAGES = ("Classes", "Most confident mistakes", "Out-of-distribution images")


def build(folder: Workdir) -> str:
    """The page, from the files that the folder has.

    Raises:
      UserError: it holds no run, or a file is not as a run writes it.
    """
    run = run_files.read(folder)
    sections = {
        "Results": _results,
        "Learning curves": pictures.learning_curves,
        "Accuracy on the way": pictures.accuracies,
        "Classes": mistakes.classes,
        "Most confident mistakes": mistakes.worst,
        "Calibration": pictures.calibration,
        "Out-of-distribution images": pictures.outside,
        "Members": pictures.members,
        "Loss surface": surface.section,
        "Cost": _cost,
        "Parameters": _parameters,
        "Config": _config,
        "Environment": _environment,
    }
    if run.is_text:
        sections = {_OF_TEXT.get(name, name): tell for name, tell in sections.items()}
        sections |= {_OF_TEXT["Calibration"]: _sample}
        for heading in _OF_IMAGES:
            del sections[heading]
    told = {heading: list(tell(run)) for heading, tell in sections.items()}
    lacking = dict.fromkeys(b for blocks in told.values() for b in blocks if isinstance(b, Absent))
    told = {heading: [b for b in blocks if b not in lacking] for heading, blocks in told.items()}
    told[absences.HEADING] = list(lacking)
    return html_page.page(
        run.name, [(heading, "\n".join(blocks)) for heading, blocks in told.items() if blocks]
    )


def _results(run: Run) -> Iterator[str]:
    config, results = run.config, run.results
    network = results_report.network_name(config["model"])
    about = f"{network} on {config['data']['name']}, seed {config['seed']}: {_status(run)}."
    yield html_page.paragraph(about)
    if run.views is None:
        note = "The table of results is made after training, by the evaluation."
        yield html_page.paragraph(note)
        return
    yield from map(html_page.lead, results_report.in_words(results))
    yield html_page.rich_table(results_report.results_table(results))
    yield from map(html_page.caption, results_report.further_lines(results))


def _status(run: Run) -> str:
    if run.results:
        if imported := run.results.imported:
            return f"imported from {imported.file}, {'' if run.views else 'not '}evaluated"
        return "complete" if run.views else "trained, not evaluated"
    done, all_epochs = len(run.records), run.config["train"]["epochs"]
    return f"in training or interrupted, {done} of {all_epochs} epochs done"


def _sample(run: Run) -> Iterator[str]:
    if run.sample is None:
        yield absent("There is no sample.txt; the evaluation after training writes it.")
        return
    note = "Drawn from the collapsed network at temperature 1, with a fixed seed, byte by byte."
    yield html_page.paragraph(note)
    yield html_page.preformatted(run.sample)


def _cost(run: Run) -> Iterator[str]:
    train = run.results.train if run.results else Train()
    seconds = train.seconds or sum(record["seconds"] for record in run.records)
    if not seconds:
        yield absent(run.trained_elsewhere or "No epoch has been timed yet.")
        return
    environment = run.environment or Environment()
    images = sum(record["images"] for record in run.records)
    devices = train.num_devices or environment.num_devices
    kind = train.device_kind or environment.device_kind
    speed = train.images_per_second or images / seconds
    peak, late_phase = train.peak_memory_bytes, run.config["late_phase"]
    members = 1 if late_phase["release_epoch"] < 0 else late_phase["num_members"]
    counted = "sequences" if run.is_text else "images"
    rows = {
        "training time": f"{seconds:,.1f} s ({seconds / 3600:.3g} h)",
        "devices": f"{devices or '-'} x {kind or 'unknown'}",
        "device hours": f"{seconds * devices / 3600:.3g}" if devices else "-",
        "training speed": f"{speed:,.1f} {counted}/s",
        f"{counted} trained on": f"{images:,}",
        "peak memory": f"{peak:,} bytes ({peak / 1e9:.3g} GB)" if peak else "-",
        "forward passes for a prediction": f"collapsed 1, ensemble {members}",
    }
    yield html_page.table((), rows.items())


def _parameters(run: Run) -> Iterator[str]:
    if not run.results:
        yield absent("Parameters are counted in results.json, when training ends.")
        return
    if run.results.parameters:
        counts = described.plain(run.results.parameters)
        yield html_page.rich_table(console.parameter_table(counts))
        return
    total, late = run.results.num_parameters, run.results.num_late_phase_parameters
    yield html_page.table(
        (), [("weights of one member", f"{total:,}"), ("late-phase", f"{late:,}")]
    )


def _environment(run: Run) -> Iterator[str]:
    if run.environment is None:
        yield absent("There is no environment.json, which a run writes at its start.")
        return
    first = described.plain(run.environment)
    resumed = first.pop("resumed", [])
    shown = [html_page.tree(first)]
    for number, session in enumerate(resumed, 2):
        shown.append(html_page.paragraph(f"Resumed, session {number}; what was different then:"))
        changed = {name: value for name, value in session.items() if value != first.get(name)}
        shown.append(html_page.tree(changed or {"different": "nothing"}))
    yield html_page.folded("Versions, devices and settings", "\n".join(shown))


def _config(run: Run) -> Iterator[str]:
    yield html_page.folded("All fields", html_page.tree(run.config))
