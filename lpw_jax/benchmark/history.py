"""`results/benchmarks/history.jsonl`: what was measured when, a line for each benchmark."""

import datetime
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lpw_jax.benchmark import report

NAME = "history.jsonl"
KEPT = ("results", "benchmarks")  # folders: what lies elsewhere is not kept


def line(results: Mapping[str, Any], *, file: str, date: datetime.date) -> dict[str, Any]:
    """Commit, date, device and the figures of a benchmark, mostly ratios, in JSON's types.

    A figure is named as in the report's table, less what stands in brackets.
    """
    made = results["environment"]
    return {
        "file": file,
        "name": results["name"],
        "date": date.isoformat(),
        "commit": made["commit"],
        "device": f"{made['num_devices']} x {made['device_kind']}",
        "figures": {
            re.sub(r" \(.*?\)", "", what): float(value)
            for what, _, value, _ in report.rows(results)
            if re.fullmatch(r"[\d.e+-]+", value)
        },
    }


def add(output: Path, results: Mapping[str, Any]) -> None:
    """Adds a line for a benchmark if `output`, its file or a suite's, is in results/benchmarks.

    What a suite's process writes lies deeper, and is added by the suite when it is whole.

    Raises:
      OSError: it cannot be written.
    """
    output = Path(os.path.abspath(output))
    kept = [folder for folder in output.parents[:2] if folder.parts[-2:] == KEPT]
    if kept and "environment" in results:
        file = output.relative_to(kept[0]).as_posix()
        found = line(results, file=file, date=datetime.date.today())
        with open(kept[0] / NAME, "a") as lines:
            lines.write(json.dumps(found) + "\n")
