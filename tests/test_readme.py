"""The README shows what files hold, and names only what exists."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_results_table_is_the_one_that_the_files_give(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "scripts"), *sys.path])
    import results_table

    assert results_table.updated(README) == README
    names = ("results", "comparisons", "benchmarks", "fields")
    assert all(f"<!-- {name}: begin -->" in README for name in names)
    speed = (ROOT / "docs" / "speed.md").read_text()
    assert "<!-- memory: begin -->" in speed and results_table.updated(speed) == speed


def test_every_file_that_the_readme_names_exists():
    named = set(re.findall(r"(?:configs|scripts|tests)/[\w/]+\.py", README))
    assert named and not [path for path in named if not (ROOT / path).exists()]


def test_every_config_and_result_that_the_readme_names_exists():
    named = set(re.findall(r"`(cifar\w+)`", README))
    known = {path.stem for path in (ROOT / "configs").glob("*.py")}
    known |= {path.name for path in (ROOT / "results").iterdir()}
    assert named and not named - known
