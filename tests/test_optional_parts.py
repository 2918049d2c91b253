"""What only shows may be missing or broken: one warning, and the run is as without it."""

import dataclasses
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from lpw_jax import report
from lpw_jax.comparison import page
from lpw_jax.display import console, events, html_page, results_report
from lpw_jax.files.workdir import Workdir
from lpw_jax.report import curves
from lpw_jax.training.journal import Journal

ROOT = Path(__file__).parents[1]
COMPARISON = ROOT / "results" / "comparisons" / "cifar10_small_6"


def missing(*names):
    def break_it(patch, folder):
        for name in names:
            patch.setitem(sys.modules, name, None)

    return break_it


def hollow(*names):
    """Libraries of that name that have nothing in them."""

    def break_it(patch, folder):
        for name in names:
            patch.setitem(sys.modules, name, types.ModuleType(name))

    return break_it


def failing(where, name):
    def fail(*args, **kwargs):
        raise ZeroDivisionError("it is broken")

    return lambda patch, folder: patch.setattr(where, name, fail)


def in_the_way(name):
    def break_it(patch, folder):
        path = folder / name
        if name == report.NAME:
            path.mkdir()
        else:
            path.write_text("a file")

    return break_it


# Each part that only shows, in the ways in which it breaks.
BROKEN = {
    "no matplotlib": missing("matplotlib", "matplotlib.figure"),
    "a hollow matplotlib": hollow("matplotlib"),
    "a figure": failing(curves, "training"),
    "a page": failing(html_page, "page"),
    "report.html cannot be written": in_the_way(report.NAME),
    "no tensorboardX": missing("tensorboardX.proto.event_pb2"),
    "a hollow tensorboardX": hollow("tensorboardX.proto.event_pb2"),
    "events": failing(events, "_scalars"),
    "events cannot be written": in_the_way(events.FOLDER),
    "the terminal": failing(console.Terminal, "print"),
    "a table": failing(results_report, "results_table"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_run_goes_on_without_what_only_shows(name, finished_run, tmp_path, monkeypatch, capsys):
    BROKEN[name](monkeypatch, tmp_path)
    lines = (finished_run / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines][:2]
    results = Workdir(finished_run).read_results()
    results = dataclasses.replace(results, data=dataclasses.replace(results.data, note=""))
    folder = Workdir(tmp_path)
    folder.write_json("config.json", json.loads((finished_run / "config.json").read_text()))
    folder.write_results(results)
    has_figures = "matplotlib" in name or name == "a figure"  # they take seconds to draw
    if not has_figures:
        report.refresh(folder)
    for _ in range(2):
        Journal(folder, records[:1]).add(records[1])
        events.write_results(folder, results)
        results_report.say(results)
    if has_figures:
        report.refresh(folder)
    told = capsys.readouterr().err.splitlines()
    assert told and len(set(told)) == len(told) and all(t.startswith("warning: ") for t in told)
    assert len(told) == (2 if name == "a table" else 1)  # that one is in the page, too
    written = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == records
    if name not in ("a page", "report.html cannot be written", "a table"):
        assert "<h2>Results</h2>" in (tmp_path / report.NAME).read_text()


def test_a_comparison_without_figures_has_its_tables(monkeypatch, capsys):
    missing("matplotlib", "matplotlib.figure")(monkeypatch, None)
    html = page.page(json.loads((COMPARISON / "comparison.json").read_text()))
    assert "figures could not be drawn" in html and "<td" in html
    assert capsys.readouterr().err.count("warning: ") == 1


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["module://matplotlib_inline.of_a_notebook", "no such one"])
def test_figures_are_drawn_whatever_backend_the_environment_names(backend):
    program = "from lpw_jax.display import drawing, html_page as h\n"
    program += "print('svg' in h.figure(drawing.new_figure, 'x'))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"MPLBACKEND": backend},
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "True\n"
