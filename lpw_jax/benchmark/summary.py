"""The page of a suite, in Markdown, made from the files of its steps."""

from collections.abc import Mapping, Sequence
from typing import Any

from lpw_jax.benchmark import report
from lpw_jax.plain_text import markdown, markdown_code


def page(records: Sequence[Mapping[str, Any]]) -> str:
    """A table of the steps that are there, and what each of them found."""
    lines = ["| step | what | status | s |", "|---|---|---|---|"]
    for record in records:
        status = record["status"].replace("_", " ")
        if "reason" in record:
            status += f": {record['reason']}"
        if missed := _missed(record):
            status += f"; {missed} target{'s' if missed > 1 else ''} missed"
        cells = (markdown_code(record["step"]), record["what"], markdown(status))
        lines.append(f"| {' | '.join(cells)} | {record['seconds']:.0f} |")
    sections = [text for record in records if (text := _section(record))]
    return "\n\n".join(["\n".join(lines), *sections]) + "\n"


def _missed(record: Mapping[str, Any]) -> int:
    results = record.get("results") or {}
    rows = report.rows(results) if "environment" in results else ()
    return sum(row[-1].startswith("missed") for row in rows)


def _section(record: Mapping[str, Any]) -> str:
    """What a step found, also before it failed; '' if nothing."""
    results = record.get("results") or {}
    if "environment" in results:
        text = report.table(results)
    elif results.get("epochs"):
        text = _training(results)
    else:
        return ""
    return f"## {record['step']}\n\n{text}"


def _training(found: Mapping[str, Any]) -> str:
    last = found["last_epoch"]
    speed, loss = f"{last['images_per_second']:,.0f} images/s", f"training loss {last['loss']:.4f}"
    lines = [f"{found['epochs']} epochs; of the last {speed}, {loss}."]
    for name, view in (found.get("results") or {}).get("views", {}).items():
        if isinstance(view, Mapping) and view.get("accuracy") is not None:
            lines.append(f"Test accuracy, {name}: {100 * view['accuracy']:.2f} %.")
    return "\n".join(lines)
