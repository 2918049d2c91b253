"""Files around the project say the same of it: versions, Pythons, what a wheel is built from."""

import re
import tomllib
from pathlib import Path

import test_wheel

from lpw_jax import command

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def text(name):
    return (ROOT / name).read_text()


def test_the_version_is_one():
    assert f"\nversion: {PROJECT['version']}\n" in text("CITATION.cff")
    newest = re.search(r"^## \[(.*?)\]", text("CHANGELOG.md"), re.MULTILINE)[1]
    told = PROJECT["version"] in text("CHANGELOG.md").split("## ")[1]
    assert newest == PROJECT["version"] or (newest == "Unreleased" and told)


def test_every_python_that_is_promised_is_tested():
    said = "Programming Language :: Python :: 3."
    promised = [
        name.removeprefix(said[:-2]) for name in PROJECT["classifiers"] if name.startswith(said)
    ]
    (matrix,) = re.findall(r"python: \[(.*)\]", text(".github/workflows/ci.yml"))
    assert re.findall(r"[\d.]+", matrix) == promised
    assert PROJECT["requires-python"] == f">={promised[0]}"


def test_hooks_lint_as_the_tests_do():
    (wanted,) = (item for item in PROJECT["optional-dependencies"]["test"] if "ruff" in item)
    assert set(re.findall(r'"(ruff.*)"', text(".pre-commit-config.yaml"))) == {wanted}


def test_images_are_built_from_what_the_wheel_is_built_from():
    kept = re.findall(r"^!(\S+)", text(".dockerignore"), re.MULTILINE)
    assert sorted(kept) == sorted(test_wheel.SOURCES)


def test_the_newest_jax_is_tried_by_taking_away_the_bound():
    pattern, replacement = re.search(r"'s/(.*)/(.*)/'", text(".github/workflows/ci.yml")).groups()
    python = pattern.replace(r"\(", "(").replace(r"\)", ")")
    (bounded,) = (item for item in PROJECT["dependencies"] if item.startswith("jax>"))
    assert re.sub(python, replacement, f'"{bounded}"') == f'"{bounded.partition(",")[0]}"'


def test_the_page_of_the_command_shows_its_help(capsys):
    assert f"```text\n{command._usage()}\n```" in text("docs/command.md")
