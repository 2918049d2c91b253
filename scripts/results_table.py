"""Makes the tables of results, comparisons and benchmarks in docs/ from the files that runs wrote,
and the list of the fields of results.json.

python scripts/results_table.py           prints the tables
python scripts/results_table.py --update  puts all between the markers of the pages in docs/
"""

import argparse
import dataclasses
import inspect
import itertools
import json
import re
import statistics
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import side_tables
from draw_effect import SIDES

from lpw_jax import streams
from lpw_jax.benchmark import report
from lpw_jax.display.results_report import network_name
from lpw_jax.files import described, measured
from lpw_jax.files.results import Results
from lpw_jax.files.run_files import RunFiles
from lpw_jax.plain_text import markdown

ROOT = Path(__file__).resolve().parent.parent
MARKERS = "<!-- {name}: begin -->\n", "<!-- {name}: end -->\n"
HEADER = (
    "| run | network | K | view | accuracy, % | NLL | Brier | ECE | AUROC |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)


def data_line(results: Results) -> str:
    """What was tested on, in one line; runs that share it share a table."""
    data = results.data
    out = f" Out of distribution: {markdown(data.ood_note)}." if data.ood_note else ""
    return f"Test set of {markdown(data.name)}. {markdown(data.note or '')}{out}"


def rows(name: str, seeds: Sequence[Results]) -> str:
    """A config's lines: one for each view, or one if its one member is all there is.

    Of several seeds mean and sample standard deviation.
    """
    first = seeds[0]
    members = len(first.views.members)
    numbers = ", ".join(str(results.seed) for results in seeds)
    lines = ""
    for view in ("collapsed", "ensemble") if members > 1 else ("collapsed",):
        found = [getattr(results.views, view) for results in seeds]
        aurocs = [
            f"{ood} {_spread([each.ood[ood].auroc for each in found], 3)}"
            for ood, measured in found[0].ood.items()
            if measured
        ]
        cells = [
            f"`{name}`, seed{'s' * (len(seeds) > 1)} {numbers}",
            network_name(first.config["model"]),
            members,
            view if members > 1 else "single network",
            _spread([100 * each.accuracy for each in found], 2),
            *(
                _spread([getattr(each, metric) for each in found], 4)
                for metric in ("nll", "brier", "ece")
            ),
            ", ".join(aurocs) or "-",
        ]
        lines += "| " + " | ".join(map(str, cells)) + " |\n"
    return lines


def _spread(values: Sequence[float], places: int) -> str:
    deviation = f" ± {statistics.stdev(values):.{places}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{places}f}{deviation}"


def tables() -> str:
    """Tables over results/<config>/seed<seed>/results.json."""
    tables = {}
    for file in sorted((ROOT / "results").glob("*/seed*/results.json")):
        results = RunFiles(file.parent).read_results()
        tables.setdefault(data_line(results), {}).setdefault(file.parents[1].name, []).append(
            results
        )
    return "".join(
        f"{data}\n\n{HEADER}{''.join(itertools.starmap(rows, configs.items()))}\n"
        for data, configs in sorted(tables.items())
    )


def comparisons() -> str:
    """What `lpw_jax.compare --out results/comparisons/NAME` wrote, below a page's headings."""
    files = sorted((ROOT / "results" / "comparisons").glob("*/comparison.md"))
    texts = [re.sub(r"^#+ .*\n", _paragraph, file.read_text(), flags=re.M) for file in files]
    return "\n".join(texts)


def _paragraph(heading: re.Match) -> str:
    """A heading as a line in bold; the title is the page's."""
    level, _, text = heading[0].strip().partition(" ")
    return f"**{text}**\n" if len(level) > 1 else ""


def benchmarks() -> str:
    """Tables over results/benchmarks/*.json."""
    texts = []
    for file in sorted((ROOT / "results" / "benchmarks").glob("*.json")):
        results = json.loads(file.read_text())
        if "config" in results:  # of lpw_jax.benchmark
            texts.append(report.table(results))
    return "\n\n".join(texts) + "\n\n"


def memory() -> str:
    """Planned memory of a cycle, over those of results/benchmarks/*.json that have it."""
    lines = [
        "| network | minibatch | K | members | stored, GB | computed anew, GB | |",
        "|---|---|---|---|---|---|---|",
    ]
    for file in sorted((ROOT / "results" / "benchmarks").glob("*.json")):
        results = json.loads(file.read_text())
        sizes = {
            (found["member_mode"], found["remat"]): found["bytes"]
            for found in results.get("memory", [])
            if found.get("bytes")
        }
        for mode in [mode for mode, remat in sizes if remat == "none"]:
            config = results["config"]
            stored, anew = sizes[mode, "none"], sizes[mode, "batch_norm"]
            cells = [
                network_name(config["model"]),
                config["train"]["batch_size"],
                config["late_phase"]["num_members"],
                f"`{mode}`",
                f"{stored / 1e9:.2f}",
                f"{anew / 1e9:.2f}",
                f"{anew / stored - 1:+.0%}",
            ]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n\n"


def surfaces() -> str:
    """What is known of the loss around the networks of each run in results/surfaces."""
    lines = []
    for folder in sorted((ROOT / "results" / "surfaces").iterdir()):
        surface = RunFiles(folder).read_surface()
        lines += [
            f"`{folder.name}`, {surface.images} training images, {surface.num_weights:,} weights:",
            "",
            "| network | loss | accuracy, % | trace of the Hessian | largest eigenvalues | "
            "loss at perturbation 0.1 |",
            "|---|---|---|---|---|---|",
        ]
        for name, one in surface.networks.items():
            (moved,) = (step.loss for step in one.perturbed if step.size == 0.1)
            cells = [
                name,
                f"{one.loss:.4f}",
                f"{100 * one.accuracy:.2f}",
                f"{one.trace:.0f} ± {one.trace_error:.0f}",
                ", ".join(f"{value:.1f}" for value in one.eigenvalues),
                f"{statistics.mean(moved):.3f} ({min(moved):.3f} to {max(moved):.3f})",
            ]
            lines.append("| " + " | ".join(cells) + " |")
        lines += [
            "",
            "| line | highest loss between the ends | losses at the ends |",
            "|---|---|---|",
        ]
        for line in surface.lines:
            ends = [line.loss[line.at.index(at)] for at in (0, 1)]
            between = [v for at, v in zip(line.at, line.loss, strict=True) if 0 <= at <= 1]
            cells = f"{max(between):.4f} | {ends[0]:.4f}, {ends[1]:.4f}"
            lines.append(f"| {line.start} to {line.end} | {cells} |")
    return "\n".join(lines) + "\n\n"


def effect() -> str:
    """The sides of the experiment in results/effect."""
    file = ROOT / "results" / "effect" / "comparison.json"
    return side_tables.table(file, ("nll", "accuracy", "ece"), SIDES)


def text_small() -> str:
    """The six methods on a small text, and the deep ensemble, in results/language."""
    file = ROOT / "results" / "language" / "text_small" / "comparison.json"
    names = {
        "text_small_base": "base",
        "text_small_base_swa": "base, SWA",
        "text_small_rank1": "rank-one from the start, no release",
        "text_small_rank1_swa": "rank-one from the start, no release, SWA",
        "text_small": "late-phase rank-one",
        "text_small_late_phase_swa": "late-phase rank-one, SWA",
        "deep ensemble of 3 text_small_base": "deep ensemble of 3 base networks",
    }
    return side_tables.table(file, ("bpc", "accuracy"), names)


def fields() -> str:
    """Of each part of results.json, and of a line of metrics.jsonl, a table of its fields."""
    places: dict[type, list[str]] = {}
    for kind, place in (*_nested(Results, ""), *_nested(measured.Epoch, "")):
        places.setdefault(kind, []).append(place)
    return "\n".join(_fields_of(kind, found) for kind, found in places.items()) + "\n"


def _nested(kind: Any, place: str) -> Iterator[tuple[type, str]]:
    """The dataclasses in a type, each with where in the JSON file it is."""
    if dataclasses.is_dataclass(kind):
        yield kind, place
        for name, inner in typing.get_type_hints(kind).items():
            yield from _nested(inner, f"{place}.{name}" if place else name)
    within = {list: "[i]", dict: ".NAME"}.get(typing.get_origin(kind), "")
    for inner in typing.get_args(kind):
        yield from _nested(inner, f"{place}{within}")


def _fields_of(kind: type, places: list[str]) -> str:
    base = next((other for other in kind.__bases__ if dataclasses.is_dataclass(other)), None)
    lines = [f"### {kind.__name__}", "", inspect.getdoc(kind).splitlines()[0], ""]
    if any(places):
        lines += [f"Where: {', '.join(f'`{place}`' for place in dict.fromkeys(places))}.", ""]
    if base:
        lines += [f"It has the fields of [{base.__name__}](#{base.__name__.lower()}), too.", ""]
    lines += ["| field | meaning |", "|---|---|"]
    for names, meaning in described.documented(kind):
        told = meaning.rstrip(".").replace("|", "/")
        lines.append(f"| `{names.replace(', ', '`, `')}` | {told} |")
    return "\n".join(lines) + "\n"


def between_markers(page: str, name: str, text: str) -> str:
    """`page` with `text` between the markers of `name`."""
    begin, end = (marker.format(name=name) for marker in MARKERS)
    before, rest = page.split(begin)
    return f"{before}{begin}\n{text}{end}{rest.split(end)[1]}"


def updated(page: str) -> str:
    """A page's text with the tables between its markers."""
    parts = {
        "results": tables,
        "comparisons": comparisons,
        "effect": effect,
        "text_small": text_small,
        "benchmarks": benchmarks,
        "fields": fields,
        "memory": memory,
        "surfaces": surfaces,
    }
    for name, text in parts.items():
        if MARKERS[0].format(name=name) in page:
            page = between_markers(page, name, text())
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="change the pages in docs/")
    if parser.parse_args().update:
        for page in (ROOT / "docs").glob("*.md"):
            page.write_text(updated(page.read_text()))
    else:
        print(tables() + comparisons() + benchmarks(), end="")


if __name__ == "__main__":
    streams.guard()
    main()
