"""The console command `lpw`: every program of the package by a short name.

lpw train --config digits_bn     is     python -m lpw_jax.main --config digits_bn
"""

import difflib
import runpy
import sys

from lpw_jax import beside, errors

_MODULES = {
    "train": ("lpw_jax.main", "train and evaluate the run that a config describes"),
    "evaluate": ("lpw_jax.evaluate", "evaluate a run again, or several as a deep ensemble"),
    "compare": ("lpw_jax.compare", "compare runs with published figures or with one another"),
    "report": ("lpw_jax.report", "write report.html of a run, or show all runs in a browser"),
    "benchmark": ("lpw_jax.benchmark", "measure how fast a config trains here"),
    "import": ("lpw_jax.torch_import", "read weights of PyTorch"),
    "export": ("lpw_jax.export", "write a run's weights for PyTorch"),
    "data": ("lpw_jax.data", "prepare data sets"),
}
_SCRIPTS = {
    "table": ("run_table", "print or run the commands of a whole table of results"),
    "batch": ("show_batch", "draw an augmented batch"),
}
COMMANDS = _MODULES | _SCRIPTS


def prog(module: str) -> str:
    """What a program of ours calls itself in its messages: as it was called."""
    called = sys.argv[0]
    return called if called.startswith("lpw ") else f"python -m {module}"


def main() -> int:
    """Runs the program that the first argument names with the others; returns its exit code."""
    errors.begin()
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(_usage())
        return 0
    if name == "--version":
        print(f"lpw_jax {_version()}")
        return 0
    if name not in COMMANDS:
        (nearest,) = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0)
        print(f"lpw: error: {name!r} is no command; the nearest is {nearest}", file=sys.stderr)
        return 2
    sys.argv = [f"lpw {name}", *arguments]
    if name in _SCRIPTS:
        sys.path.insert(0, str(beside.folder("scripts")))  # as Python does that runs one
    module, _ = COMMANDS[name]
    runpy.run_module(module, run_name="__main__")
    return 0


def _usage() -> str:
    lines = [f"  {name:<11}{what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: lpw [-h] [--version] COMMAND ...",
            "",
            "Neural networks with late-phase weights.",
            "",
            "commands:",
            *lines,
            "",
            "lpw COMMAND --help shows the flags of each, lpw train --help examples.",
        ]
    )


def _version() -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version("lpw_jax")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
