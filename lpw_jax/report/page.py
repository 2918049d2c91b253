"""The page that tells of one run: report.html."""

from collections.abc import Iterator

from lpw_jax.display import console, html_page, results_report
from lpw_jax.files.workdir import Workdir
from lpw_jax.report import pictures, run_files
from lpw_jax.report.run_files import Run


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
        "Members": pictures.members,
        "Calibration": pictures.calibration,
        "Out-of-distribution images": pictures.outside,
        "Cost": _cost,
        "Parameters": _parameters,
        "Config": lambda run: [html_page.tree(run.config)],
        "Environment": _environment,
    }
    return html_page.page(
        run.name, [(heading, "\n".join(tell(run))) for heading, tell in sections.items()]
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
    yield html_page.rich_table(results_report.results_table(results))
    if results.get("pretrained"):
        yield html_page.paragraph(results_report.pretrained_line(results["pretrained"]))
    if results.get("best_epoch"):
        yield html_page.paragraph(results_report.best_line(results["best_epoch"]))


def _status(run: Run) -> str:
    imported = (run.results or {}).get("imported")
    if imported:
        return f"imported from {imported['file']}, {'' if run.views else 'not '}evaluated"
    if run.results:
        return "complete" if run.views else "trained, not evaluated"
    done, all_epochs = len(run.records), run.config["train"]["epochs"]
    return f"in training or interrupted, {done} of {all_epochs} epochs done"


def _cost(run: Run) -> Iterator[str]:
    train, members = (run.results or {}).get("train", {}), run.config["late_phase"]["num_members"]
    seconds = train.get("seconds") or sum(record["seconds"] for record in run.records)
    if not seconds:
        imported = (run.results or {}).get("imported")
        why = "It was trained elsewhere." if imported else "No epoch has been timed yet."
        yield html_page.paragraph(why)
        return
    images = sum(record["images"] for record in run.records)
    devices = train.get("num_devices") or (run.environment or {}).get("num_devices")
    kind = train.get("device_kind") or (run.environment or {}).get("device_kind")
    speed = train.get("images_per_second") or images / seconds
    peak = train.get("peak_memory_bytes")
    if run.config["late_phase"]["release_epoch"] < 0:
        members = 1
    rows = {
        "training time": f"{seconds:,.1f} s ({seconds / 3600:.3g} h)",
        "devices": f"{devices or '-'} x {kind or 'unknown'}",
        "device hours": f"{seconds * devices / 3600:.3g}" if devices else "-",
        "training speed": f"{speed:,.1f} images/s",
        "images trained on": f"{images:,}",
        "peak memory": f"{peak:,} bytes ({peak / 1e9:.3g} GB)" if peak else "-",
        "forward passes for a prediction": f"collapsed 1, ensemble {members}",
    }
    yield html_page.table((), rows.items())


def _parameters(run: Run) -> Iterator[str]:
    if not run.results:
        yield html_page.paragraph("Parameters are counted in results.json, when training ends.")
        return
    if run.results.get("parameters"):
        yield html_page.rich_table(console.parameter_table(run.results["parameters"]))
        return
    total, late = run.results["num_parameters"], run.results["num_late_phase_parameters"]
    yield html_page.table(
        (), [("weights of one member", f"{total:,}"), ("late-phase", f"{late:,}")]
    )


def _environment(run: Run) -> Iterator[str]:
    if run.environment is None:
        yield html_page.paragraph("There is no environment.json, which a run writes at its start.")
        return
    resumed = run.environment.get("resumed", [])
    first = {name: value for name, value in run.environment.items() if name != "resumed"}
    yield html_page.tree(first)
    for number, session in enumerate(resumed, 2):
        yield html_page.paragraph(f"Resumed, session {number}; what was different then:")
        changed = {name: value for name, value in session.items() if value != first.get(name)}
        yield html_page.tree(changed or {"different": "nothing"})
