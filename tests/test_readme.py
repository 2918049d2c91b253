"""README and pages show what files hold, and name only files that exist."""

import re
import sys

import pytest
from page_commands import PAGES, ROOT

import lpw_jax


def test_the_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 150


def test_tables_are_those_that_the_files_give(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "scripts"), *sys.path])
    import results_table

    for name in ("results", "comparisons", "benchmarks", "fields", "memory", "surfaces"):
        assert sum(f"<!-- {name}: begin -->" in text for text in PAGES.values()) == 1, name
    for name, text in PAGES.items():
        assert results_table.updated(text) == text, name


@pytest.mark.parametrize("name", PAGES)
def test_every_file_that_a_page_names_exists(name):
    folder = (ROOT / name).parent
    folders = "configs|docker|docs|examples|lpw_jax|scripts|tests"
    files = set(re.findall(rf"(?<![\w/.])(?:{folders})/[\w/]+\.(?:py|sh|md|json)", PAGES[name]))
    files -= {"configs/NAME.py", "examples/NAME.py"}
    assert not [path for path in files if not (ROOT / path).exists()]
    links = re.findall(r"(?:\]\(|src(?:set)?=\")(?!https?:)([^)#\"]+)", PAGES[name])
    assert not [link for link in links if not (folder / link).exists()]


@pytest.mark.parametrize("name", PAGES)
def test_every_config_and_result_that_a_page_names_exists(name):
    known = {path.stem for path in (ROOT / "configs").glob("*.py")}
    known |= {path.name for path in (ROOT / "results").iterdir()}
    known |= {path.stem for path in (ROOT / "tests" / "golden").glob("*.npz")}
    assert not set(re.findall(r"`(cifar\w+)`", PAGES[name])) - known


def test_the_library_page_has_every_public_name():
    told = re.findall(r"^::: (\S+)\.(\w+)$", PAGES["docs/api.md"], re.MULTILINE)
    assert {name: module for module, name in told} == lpw_jax._MODULES


def test_a_row_that_a_page_explains_is_that_of_the_comparison():
    file = "results/comparisons/cifar10_small_6/comparison.md"
    header, _, row = re.findall(r"^\|.*\|$", PAGES["docs/statistics.md"].split(file)[1], re.M)[:3]
    assert f"\n{header}\n" in (ROOT / file).read_text()
    assert f"\n{row}\n" in (ROOT / file).read_text()


def test_every_page_is_in_the_sites_contents():
    text = (ROOT / "mkdocs.yml").read_text()
    pages = {name.removeprefix("docs/") for name in PAGES if name.startswith("docs/")}
    assert set(re.findall(r"(\w+\.md)", text)) == pages
