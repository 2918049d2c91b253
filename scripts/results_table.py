"""Makes the README's tables of results and benchmarks from the files that runs wrote.

python scripts/results_table.py                    prints them
python scripts/results_table.py --update README.md puts them between the README's markers
"""

import argparse
import itertools
import json
from pathlib import Path

from lpw_jax.benchmark import report
from lpw_jax.results_report import network_name

ROOT = Path(__file__).resolve().parent.parent
MARKERS = "<!-- {name}: begin -->\n", "<!-- {name}: end -->\n"
HEADER = (
    "| run | network | K | view | accuracy, % | NLL | Brier | ECE | AUROC |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)


def data_line(results: dict) -> str:
    """What was tested on, in one line; runs that share it share a table."""
    data = results["data"]
    out = f" Out of distribution: {data['ood_note']}." if data["ood_note"] else ""
    return f"Test set of {data['name']}. {data['note']}{out}"


def rows(run: str, results: dict) -> str:
    """A run's lines: one for each view, or one if its one member is all there is."""
    config, views = results["config"], results["views"]
    members = len(views["members"])
    lines = ""
    for view in ("collapsed", "ensemble") if members > 1 else ("collapsed",):
        found = views[view]
        aurocs = [f"{name} {ood['auroc']:.3f}" for name, ood in found["ood"].items() if ood]
        cells = [
            f"`{run}`, seed {results['seed']}",
            network_name(config["model"]),
            members,
            view if members > 1 else "single network",
            f"{100 * found['accuracy']:.2f}",
            *(f"{found[metric]:.4f}" for metric in ("nll", "brier", "ece")),
            ", ".join(aurocs) or "-",
        ]
        lines += "| " + " | ".join(map(str, cells)) + " |\n"
    return lines


def tables() -> str:
    """Tables over results/<config>/seed<seed>/results.json."""
    files = sorted((ROOT / "results").glob("*/seed*/results.json"))
    runs = [(file.parent.parent.name, json.loads(file.read_text())) for file in files]
    text = ""
    for data, group in itertools.groupby(
        sorted(runs, key=lambda run: data_line(run[1])), key=lambda run: data_line(run[1])
    ):
        text += f"{data}\n\n{HEADER}{''.join(itertools.starmap(rows, group))}\n"
    return text


def benchmarks() -> str:
    """Tables over results/benchmarks/*.json."""
    texts = []
    for file in sorted((ROOT / "results" / "benchmarks").glob("*.json")):
        texts.append(report.table(json.loads(file.read_text())))
    return "\n\n".join(texts) + "\n\n"


def updated(readme: str) -> str:
    """`readme` with the tables between its markers."""
    for name, text in (("results", tables()), ("benchmarks", benchmarks())):
        begin, end = (marker.format(name=name) for marker in MARKERS)
        before, rest = readme.split(begin)
        readme = f"{before}{begin}\n{text}{end}{rest.split(end)[1]}"
    return readme


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", type=Path, metavar="README", help="file to change")
    arguments = parser.parse_args()
    if arguments.update:
        arguments.update.write_text(updated(arguments.update.read_text()))
    else:
        print(tables() + benchmarks(), end="")


if __name__ == "__main__":
    main()
