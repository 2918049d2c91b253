"""The code blocks and commands of a page, and the programs that read such commands."""

import argparse
import ast
import contextlib
import importlib
import importlib.util
import inspect
import io
import re
import subprocess
import sys
import textwrap
from pathlib import Path

from lpw_jax import command, config, errors

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    str(page.relative_to(ROOT)): page.read_text()
    for page in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "examples" / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
    )
}
FENCED = re.compile(r"^( *)(```+)(.*)\n((?:.*\n)*?)\1\2 *$", re.M)
_INDENTED = re.compile(r"(?<=\n\n)(?:(?: {4}.*| *)\n)*(?: {4}.*\n)")
_PROGRAM = re.compile(r"(python3?|\.venv/bin/\S+|lpw|scripts/\S+|bash|pip|pytest) \S")
PLACEHOLDERS = {
    "NAME": "digits_bn",
    "configs/NAME.py": "digits_bn",
    "examples/NAME.py": "examples/noisy_quadratic.py",
}

# A shell in which no program runs: each one is written down, with the folder that it is called in.
_SHELL = r"""
PATH=/nonexistent HERE=. SLURM_ARRAY_TASK_ID=0
note() { printf '%s\x1f' "$HERE" "$@" >&3; printf '\x1e' >&3; }
command_not_found_handle() { note "$@"; }
cd() { HERE=$HERE/$1; }
"""


def blocks(page):
    """Yields (language, code) of a page's blocks, fenced or indented by four spaces."""
    for space, _, language, code in FENCED.findall(page):
        yield language.strip(), textwrap.dedent(code) if space else code
    for code in _INDENTED.findall(FENCED.sub("", page)):
        if not re.match(r"\s*(\d+\.|[-*]) ", code):
            yield "", textwrap.dedent(code)


def shell(page):
    """The pieces of shell on a page, each with whether it stands amid a sentence."""
    found = [(code, False) for language, code in blocks(page) if language in ("", "sh", "bash")]
    prose = re.sub(r"\s+", " ", FENCED.sub("", page))
    return found + [
        (code, True) for code in re.findall(r"`([^`]+)`", prose) if _PROGRAM.match(code)
    ]


def files(page):
    """(name, code) of the files that a page tells to save, in Python."""
    return re.findall(r"^Save this as `(\w+\.py)`.*?^```python\n(.*?)^```$", page, re.M | re.S)


def called(code, folder):
    """Yields (folder, words) of the programs that a piece of shell would start, expanded."""
    in_folders = set(re.findall(r"(?<![\w/=.])[\w.-]+(?:/[\w.-]+)+(?= |$)", code, re.M))
    stubs = [f'function {name} {{ note "{name}" "$@"; }}\n' for name in sorted(in_folders)]
    done = subprocess.run(
        ["bash", "-c", f"exec 3>&1 >/dev/null\n{_SHELL}{''.join(stubs)}{code}"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and not done.stderr, f"{code}\n{done.stderr}"
    for line in done.stdout.split("\x1e")[:-1]:
        here, *words = line.split("\x1f")[:-1]
        yield here, words
        for word in words:  # what is given to another shell
            if re.search(r"python \S", word):
                yield from called(word, folder)


def program(words):
    """Of a command the module, the file or the code that Python runs, and its arguments."""
    if words[0] == "lpw" and words[1:2] and words[1] in command.COMMANDS:
        module, _ = command.COMMANDS[words[1]]
        return module if module.startswith("lpw_jax.") else f"scripts/{module}.py", words[2:]
    if words[0].endswith(".py"):
        return words[0], words[1:]
    for at, word in enumerate(words):
        if re.fullmatch(r"(.*/)?python3?", word):
            module, *others = words[at + 1 :] or [""]
            return (
                (others[0], others[1:]) if module in ("-m", "-c") and others else (module, others)
            )
    return "", []


def mistake(name, words, *, is_partial, monkeypatch):
    """What the program `name` says against a command line; '' = nothing. It goes no further.

    With `is_partial` what it needs may be missing.
    """
    name, *words = [PLACEHOLDERS.get(word, word) for word in (name, *words)]
    said = io.StringIO()
    with monkeypatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr(sys, "argv", [name, *words])
        patch.setattr(argparse.ArgumentParser, "parse_known_args", _reading())
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                _started(name, words, patch)
        except _Read as read:
            arguments, others = read.args
            overrides = [word for word in others if word.startswith("--config.")]
            if unknown := [word for word in others if word not in overrides]:
                return f"it knows no {' '.join(unknown)}"
            _, overrides = config.split_flags(words)
            file = getattr(arguments, "config", None) or getattr(arguments, "base", None) or "base"
            try:
                config.load_config(file, overrides)
            except errors.ConfigError as error:
                return f"{file}: {error}"
        except SystemExit as end:
            partly = is_partial and re.search("(are|is) required", said.getvalue())
            return "" if end.code in (0, None) or partly else said.getvalue()
    return ""


class _Read(Exception):
    """The command line is read: what was found, and what was not known."""


def _reading():
    """argparse's `parse_known_args`, after which no program goes on."""
    real, depth = argparse.ArgumentParser.parse_known_args, 0

    def read(*args, **kwargs):
        nonlocal depth
        depth += 1  # subcommands are read inside
        try:
            found = real(*args, **kwargs)
        finally:
            depth -= 1
        if not depth:
            raise _Read(*found)
        return found

    return read


def _started(name, words, patch):
    """Calls a program, which must begin by reading its command line."""
    if name.startswith("lpw_jax."):
        is_package = importlib.util.find_spec(name).submodule_search_locations
        module = importlib.import_module(f"{name}.__main__" if is_package else name)
        module.main()
        return
    file = Path(name).resolve()
    patch.syspath_prepend(file.parent)
    module = importlib.import_module(file.stem)
    if hasattr(module, "argparse") or hasattr(module, "show"):
        module.main()
    elif hasattr(module, "main"):
        inspect.signature(module.main).bind(*words)


def unknown_names(code):
    """Yields what a piece of Python names of this package that is not there."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module, alias.name) for alias in node.names]
        else:
            names = []
        for module, name in names:
            if module.partition(".")[0] in ("lpw_jax", "configs"):
                try:
                    found = importlib.import_module(module)
                    if name and not hasattr(found, name):
                        importlib.import_module(f"{module}.{name}")
                except ImportError as error:
                    yield str(error)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield from _unknown_arguments(node)
        if isinstance(node, ast.Attribute):
            try:
                resolved(ast.unparse(node))
            except AttributeError as error:
                yield str(error)


def _unknown_arguments(call):
    try:
        found = resolved(ast.unparse(call.func))
    except AttributeError:
        return
    if found is None:
        return
    known = inspect.signature(found).parameters
    if not any(kind.kind is kind.VAR_KEYWORD for kind in known.values()):
        for keyword in call.keywords:
            if keyword.arg and keyword.arg not in known:
                yield f"{ast.unparse(call.func)} takes no {keyword.arg}"


def resolved(path):
    """What 'lpw_jax.a.b' is; None of other paths. Raises AttributeError if it is nothing."""
    if not re.fullmatch(r"lpw_jax(\.\w+)+", path):
        return None
    found, module = importlib.import_module("lpw_jax"), "lpw_jax"
    for name in path.split(".")[1:]:
        module = f"{module}.{name}"
        if not hasattr(found, name):
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise AttributeError(f"{path}: {error}") from error
        found = getattr(found, name)
    return found
