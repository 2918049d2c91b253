"""Every block of code, command, field and flag that README and pages show is one that there is."""

import re
import tomllib

import page_commands
import pytest
from page_commands import PAGES, ROOT

from lpw_jax import config_schema
from lpw_jax.files import results

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
LANGUAGES = {"", "sh", "bash", "python", "{ .python }", "text"}
FIELDS = set(config_schema.flatten(config_schema.schema()))
RESULTS = {f"data.{name}" for name in results.Data.__annotations__}


@pytest.mark.parametrize("name", PAGES)
def test_every_command_is_one_that_its_program_takes(name, tmp_path, monkeypatch):
    for file, code in page_commands.files(PAGES[name]):
        (tmp_path / file).write_text(code)
        monkeypatch.setitem(page_commands.PLACEHOLDERS, file, str(tmp_path / file))
    for code, is_partial in page_commands.shell(PAGES[name]):
        check(code, is_partial, tmp_path, monkeypatch)


def test_every_command_in_configs_and_programs_is_one_that_its_program_takes(tmp_path, monkeypatch):
    example = re.compile(r"^ *(python (?:-m lpw_jax|scripts/)[^\n\[|]*?)(?:  +\S.*)?$", re.M)
    for folder in ("configs", "scripts", "lpw_jax"):
        code = "\n".join(
            command
            for file in (ROOT / folder).rglob("*.py")
            if file.name not in ("draw_scheme.py", "collectives.py")  # which have no flags
            for command in example.findall(re.sub(r" *\\\\\n +", " ", file.read_text()))
        )
        assert code.count("\n") >= 5, folder
        check(code, False, tmp_path, monkeypatch)


def check(code, is_partial, folder, monkeypatch):
    for here, words in page_commands.called(code, folder):
        monkeypatch.chdir(ROOT / here)
        for extras in re.findall(r"(?<=^\.\[).*(?=\]$)", "\n".join(words), re.M):
            assert set(extras.split(",")) <= set(EXTRAS), words
        program, arguments = page_commands.program(words)
        if program.startswith("lpw_jax.") or program.endswith(".py"):
            said = page_commands.mistake(
                program, arguments, is_partial=is_partial, monkeypatch=monkeypatch
            )
            assert not said, f"{words}: {said}"
        elif " " in program:  # python -c
            assert not list(page_commands.unknown_names(program)), program


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("lpw train --config digits_bn --config.train.bach_size=3", "batch_size"),
        ("python -m lpw_jax.main --config configs/digits_bn.py:slow", "takes 0 positional"),
        ("python -m lpw_jax.main --config configs/digits.py", "no such config file"),
        ("lpw evaluate --workdir DIR --nothing", "--nothing"),
        ("lpw evaluate --workdir DIR --config.evaluate.batch_size=all", "expected int"),
        ("for i in 1 2; do lpw table digits --sedes $i; done", "--sedes"),
        ("cd examples && python nnx_network.py --quik", "--quik"),
        ("srun python examples/own_network/make_images.py", "missing a required argument"),
    ],
)
def test_a_mistake_in_a_command_is_found(code, words, tmp_path, monkeypatch):
    with pytest.raises((AssertionError, TypeError), match=words):
        check(code, False, tmp_path, monkeypatch)


def test_a_mistake_in_python_is_found():
    code = """
import lpw_jax
from lpw_jax.models import nothing
lpw_jax.low_rank(4, "x").make
lpw_jax.lowrank(4, "x")
lpw_jax.copies("x", patern="y")
lpw_jax.models.resnet.nothing
"""
    assert len(list(page_commands.unknown_names(code))) == 4


@pytest.mark.parametrize("name", PAGES)
def test_every_block_of_code_says_what_it_is_and_python_names_what_there_is(name):
    for language, code in page_commands.blocks(PAGES[name]):
        assert language in LANGUAGES, code
        if language == "python":
            assert not list(page_commands.unknown_names(code))


@pytest.mark.parametrize("name", PAGES)
def test_every_name_amid_a_sentence_is_one_that_there_is(name):
    prose = page_commands.FENCED.sub("", PAGES[name])
    for path in re.findall(r"`(lpw_jax(?:\.\w+)+)[`(]", prose):
        page_commands.resolved(path)
    sections = "|".join({field.split(".")[0] for field in FIELDS if "." in field})
    fields = set(
        re.findall(rf"`(?:--config\.)?((?:{sections})\.(?!py`|ipynb`)[a-z_]\w*)[` =]", prose)
    )
    assert not fields - FIELDS - RESULTS
