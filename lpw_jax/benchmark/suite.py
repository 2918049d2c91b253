"""Many measurements as one command, which may be ended at any moment and goes on where it was."""

import argparse
import datetime
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lpw_jax import config as config_lib
from lpw_jax import config_schema, signals
from lpw_jax.benchmark import step_process
from lpw_jax.benchmark.steps import SUITES, Step, small
from lpw_jax.command import prog
from lpw_jax.errors import Preempted, UserError, exit_code
from lpw_jax.files import lock, storage

SIZES = ("full", "small")
SUMMARY, LOGS, RUNS, WORK = "summary.md", "logs", "runs", "work"
GRACE = {"full": 45.0, "small": 10.0}  # seconds that a training has for its last checkpoint
LEAST = 0.1  # part of a step's minutes for which it is worth beginning

_DESCRIPTION = """\
Measures everything that should be shown on an accelerator within the given time, the most important
first. Each step writes DIR/STEP.json when it ends; DIR/summary.md shows all steps. The same command
continues: finished steps are not run again, and trainings go on. A failed step runs again if its
command changed or its file was removed. --config.FIELD=VALUE flags, such as data.dir, are for all.
"""


def add_pytorch_flags(parser: argparse.ArgumentParser) -> None:
    """Gives a program the flags that `check_pytorch_flags` reads."""
    parser.add_argument(
        "--pytorch_code",
        metavar="DIR",
        help="clone of the published code (github.com/seijin-kobayashi/late-phase-weights)",
    )
    parser.add_argument(
        "--pytorch_python", metavar="FILE", default=sys.executable, help="a Python with torch"
    )


def check_pytorch_flags(args: argparse.Namespace) -> None:
    """Raises UserError unless they name what is there."""
    if args.pytorch_code:
        args.pytorch_code = str(storage.path(args.pytorch_code))
        if not Path(args.pytorch_code).is_dir():
            raise UserError(f"--pytorch_code = {args.pytorch_code!r}: must be a folder")
        if not shutil.which(args.pytorch_python):
            raise UserError(f"--pytorch_python = {args.pytorch_python!r}: must be a Python")


def parser() -> argparse.ArgumentParser:
    """The command line, `--config.FIELD=VALUE` flags excepted."""
    parser = argparse.ArgumentParser(
        prog=prog("lpw_jax.benchmark"),
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--suite", required=True, help=f"which, of {', '.join(SUITES)}")
    parser.add_argument("--output", metavar="DIR", required=True, help="folder for all of it")
    parser.add_argument("--minutes", type=float, default=25.0, help="time (default: %(default)g)")
    parser.add_argument(
        "--size", default="full", help="full, or small: seconds on a CPU (default: %(default)s)"
    )
    parser.add_argument("--steps", help="which, with commas between (default: all)")
    add_pytorch_flags(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs a suite as `argv` says; returns the exit code, 0 also if steps failed."""
    flags = parser()
    others, overrides = config_lib.split_flags(argv)
    args = flags.parse_args(others)

    def run():
        deadline = time.monotonic() + 60 * args.minutes
        if not 0 < args.minutes < math.inf:
            raise UserError(f"--minutes = {args.minutes}: must be a number > 0")
        check_pytorch_flags(args)
        steps = steps_of(args)
        for step in steps:  # a mistake is known before the first one begins
            config_lib.load_config(_config(step), [*overrides, *step.overrides])
        if storage.is_remote(args.output):
            raise UserError(f"--output = {args.output!r}: must be a local folder")
        folder = Path(storage.path(args.output))
        try:
            for name in ("", LOGS, RUNS, WORK):
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--output = {str(folder)!r}: must be a folder; {error}") from error
        with lock.held(folder, "--output"), signals.handled(dict.fromkeys(signals.ENDING, _leave)):
            Suite(folder, args, overrides, deadline).run(steps)

    return exit_code(flags.prog, run)


def _leave(*_: Any) -> None:
    raise Preempted


def steps_of(args: argparse.Namespace) -> list[Step]:
    """The steps that the command line asks for; raises UserError if there are none such."""
    if args.suite not in SUITES:
        raise UserError(f"--suite = {args.suite!r}: must be one of {', '.join(SUITES)}")
    if args.size not in SIZES:
        raise UserError(f"--size = {args.size!r}: must be one of {', '.join(SIZES)}")
    known = [step.name for step in SUITES[args.suite]]
    chosen = known if args.steps is None else args.steps.split(",")
    if unknown := [name for name in chosen if name not in known]:
        raise UserError(f"--steps = {args.steps!r}: {unknown[0]!r} is none of {', '.join(known)}")
    steps = [step for step in SUITES[args.suite] if step.name in chosen]
    return steps if args.size == "full" else list(map(small, steps))


def _config(step: Step) -> str:
    return str(config_schema.CONFIGS / step.config)


class Suite:
    """The steps of one call.

    Args:
      folder: for all files.
      args: the command line.
      overrides: '--config.FIELD=VALUE' for every step.
      deadline: at which nothing runs any more, of `time.monotonic`.

    Raises:
      UserError: the folder holds a suite of another kind or size.
    """

    def __init__(
        self, folder: Path, args: argparse.Namespace, overrides: Sequence[str], deadline: float
    ):
        self._folder, self._args = folder, args
        self._overrides, self._deadline = overrides, deadline
        self._grace = GRACE[args.size]
        self._kind = {"suite": args.suite, "size": args.size}
        for step in SUITES[args.suite]:
            found = self.known(step)
            if found and {name: found.get(name) for name in self._kind} != self._kind:
                raise UserError(
                    f"--output = {str(folder)!r}: holds {step.name} of --suite "
                    f"{found.get('suite')} --size {found.get('size')}; choose another folder"
                )

    def known(self, step: Step) -> dict[str, Any] | None:
        """What an earlier call wrote of a step."""
        file = self._folder / f"{step.name}.json"
        if not file.exists():
            return None
        with storage.reading(file, "remove it to measure anew"):
            found = json.loads(file.read_text())
            if not isinstance(found, dict) or "status" not in found:
                raise UserError(f"{file}: is no step of a suite; choose another folder")
            return found

    def run(self, steps: Sequence[Step]) -> None:
        """Runs what is not there yet, and writes each step and the summary at once."""
        from lpw_jax.benchmark import history, summary  # takes seconds
        from lpw_jax.display import console

        for step in steps:
            command = self.command(step)
            known = self.known(step)
            if known and _stands(known, command):
                console.say(f"{step.name}: {known['status']} before")
            else:
                console.say(f"{step.name}: {step.what}")
                found = self._kind | {"step": step.name, "what": step.what, "command": command}
                found |= self._run(step, command)
                text = json.dumps(found, indent=1) + "\n"
                storage.write_text(self._folder / f"{step.name}.json", text)
                if found["status"] == "done" and step.parts:
                    history.add(self._folder / f"{step.name}.json", found["results"])
                console.say(f"  {found['status']}{_because(found)}, {found['seconds']:.0f} s")
            records = [found for step in SUITES[self._args.suite] if (found := self.known(step))]
            storage.write_text(self._folder / SUMMARY, summary.page(records))
        console.say(f"written: {self._folder / SUMMARY}")

    def command(self, step: Step) -> list[str]:
        """The process of a step."""
        overrides = [*self._overrides, *step.overrides]
        command = [sys.executable, "-m", "lpw_jax.benchmark" if step.parts else "lpw_jax.main"]
        command += [f"--config={_config(step)}", *overrides, *step.flags]
        if not step.parts:
            return [*command, f"--workdir={self._folder / RUNS / step.name}"]
        if step.needs_pytorch:
            command += [f"--pytorch_code={self._args.pytorch_code}"]
            command += [f"--pytorch_python={self._args.pytorch_python}"]
        return [*command, f"--parts={step.parts}", f"--output={self._scratch(step)}"]

    def _scratch(self, step: Step) -> Path:
        return self._folder / WORK / f"{step.name}.json"

    def _run(self, step: Step, command: Sequence[str]) -> dict[str, Any]:
        """Status and results of a step, which has all the time there is, but no more than it has
        minutes."""
        nothing = {"status": "not_run", "seconds": 0.0, "date": _now()}
        if step.needs_pytorch and not self._args.pytorch_code:
            return nothing | {"reason": "--pytorch_code names no clone of the published code"}
        left = self._deadline - time.monotonic() - (1.0 if step.parts else self._grace)
        if left < max(1.0, 60 * LEAST * step.minutes):
            return nothing | {"reason": "the time was over"}
        limit = min(left, 60 * step.minutes) if step.parts else left
        log, scratch = self._folder / LOGS / f"{step.name}.log", self._scratch(step)
        scratch.unlink(missing_ok=True)
        start = time.monotonic()
        code = step_process.run(
            command,
            log=log,
            seconds=limit,
            grace=0.0 if step.parts else self._grace,
            environment=_environment(with_cpu=step.parts == "check"),
        )
        found = {"seconds": time.monotonic() - start, "date": _now()}
        if not step.parts:
            return found | self._training(step, code, log)
        results = json.loads(scratch.read_text()) if scratch.exists() else {}
        found["results"] = results
        if code is None:
            is_short = limit < 60 * step.minutes  # it had less than it may need
            reason = f"ended after {limit:.0f} s"
            return found | {"status": "not_run" if is_short else "failed", "reason": reason}
        if code:
            return found | {"status": "failed", "reason": _why(code, log)}
        missing = [_missing(results.get(part)) for part in step.parts.split(",")]
        if all(missing):
            return found | {"status": "failed", "reason": missing[0]}
        return found | {"status": "done"}

    def _training(self, step: Step, code: int | None, log: Path) -> dict[str, Any]:
        from lpw_jax.files import described, run_files  # takes seconds

        run = run_files.RunFiles(self._folder / RUNS / step.name)
        lines = run.read_metrics()
        found: dict[str, Any] = {"epochs": len(lines), "last_epoch": lines[-1] if lines else None}
        if code == 0:
            results = described.plain(run.read_results())
            return {"status": "done", "results": found | {"results": results}}
        if code in (None, signals.PREEMPTED):  # a next call continues it
            return {"status": "unfinished", "reason": "the time was over", "results": found}
        return {"status": "failed", "reason": _why(code, log), "results": found}


def _stands(found: Mapping[str, Any], command: Sequence[str]) -> bool:
    """Whether a step is not to be run again: it is done, or failed by this very command."""
    failed = found["status"] == "failed" and found.get("command") == command
    return found["status"] == "done" or failed


def _missing(part: Any) -> str:
    """Why a part was not measured, '' if it was."""
    if part is None:
        return "these images are not streamed"  # the only part that others leave out
    return str(part["not_run"]) if isinstance(part, Mapping) and "not_run" in part else ""


def _why(code: int, log: Path) -> str:
    return f"exit code {code}: {step_process.last_words(log)}"


def _because(found: Mapping[str, Any]) -> str:
    return f" ({found['reason']})" if "reason" in found else ""


def _environment(*, with_cpu: bool) -> dict[str, str]:
    """That of a step, `with_cpu` beside the device."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if with_cpu and platforms and "cpu" not in platforms.split(","):
        return {**os.environ, "JAX_PLATFORMS": f"{platforms},cpu"}
    return dict(os.environ)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
