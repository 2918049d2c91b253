"""Makes the README's table of results from the files that runs wrote.

python scripts/results_table.py                    prints it
python scripts/results_table.py --update README.md puts it between the README's markers
"""

import argparse
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- results: begin -->\n", "<!-- results: end -->\n"
HEADER = (
    "| run | data | network | K | view | test accuracy, % | NLL | ECE | AUROC | images/s |\n"
    "|---|---|---|---|---|---|---|---|---|---|\n"
)


def rows(file: Path) -> str:
    """The lines of one results.json: one for each view."""
    results = json.loads(file.read_text())
    config, views, data = results["config"], results["views"], results["data"]
    environment = json.loads((file.parent / "environment.json").read_text())
    note = data["note"].split(".")[0] or data["name"]
    network = f"WRN-{config['model']['depth']}-{config['model']['width']}"
    members = len(views["members"])
    lines = ""
    for view in ("collapsed", "ensemble"):
        found = views[view]
        aurocs = [f"{name} {ood['auroc']:.3f}" for name, ood in found["ood"].items() if ood]
        cells = [
            f"`{file.parent.parent.name}`, seed {results['seed']}",
            note,
            network,
            members,
            view,
            f"{100 * found['accuracy']:.2f}",
            f"{found['nll']:.4f}",
            f"{found['ece']:.4f}",
            ", ".join(aurocs) or "-",
            f"{results['train']['images_per_second']:.0f} ({environment['device_kind']})",
        ]
        lines += "| " + " | ".join(map(str, cells)) + " |\n"
        if members == 1:  # both views are the one network
            return lines.replace("| collapsed |", "| single network |")
    return lines


def table() -> str:
    """The whole table, over results/<config>/seed<seed>/results.json."""
    files = sorted((ROOT / "results").glob("*/seed*/results.json"))
    return HEADER + "".join(map(rows, files))


def updated(readme: str) -> str:
    """`readme` with the table between its markers."""
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return before + BEGIN + "\n" + table() + "\n" + END + after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", type=Path, metavar="README", help="file to change")
    arguments = parser.parse_args()
    if arguments.update:
        arguments.update.write_text(updated(arguments.update.read_text()))
    else:
        print(table(), end="")


if __name__ == "__main__":
    main()
