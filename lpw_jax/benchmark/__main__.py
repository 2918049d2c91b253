"""Measures a config on the devices that are there.

python -m lpw_jax.benchmark --config configs/cifar10_bn.py --output results/benchmarks/h100.json
python -m lpw_jax.benchmark --suite accelerator --minutes 25 --output DIR
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lpw_jax import config as config_lib
from lpw_jax.benchmark import suite
from lpw_jax.command import prog
from lpw_jax.errors import UserError, exit_code, leave
from lpw_jax.files import storage
from lpw_jax.plain_text import visible

PARTS = (
    "matmul",
    "step",
    "program",
    "input",
    "collectives",
    "memory",
    "dispatch",
    "start",
    "pytorch",
)
ALL_PARTS = ("check", "remat", *PARTS)
MODES = ("vmap", "scan", "unroll")


def parser() -> argparse.ArgumentParser:
    """The command line, `--config.FIELD=VALUE` flags excepted."""
    parser = argparse.ArgumentParser(
        prog=prog("lpw_jax.benchmark"),
        description="Measures how fast a config trains here: bare steps, the whole program, "
        "memory, communication. Close other programs first.",
        epilog="`--suite accelerator` instead of --config measures all that an accelerator has to "
        "prove, and can be resumed: `--suite accelerator --help`.",
    )
    config_lib.add_config_flags(parser)
    parser.add_argument(
        "--output",
        metavar="FILE.json",
        help="where results go; a table goes beside it (default: runs/benchmarks/<config>.json)",
    )
    parser.add_argument(
        "--parts", default=",".join(PARTS), help="which, of %(default)s, check and remat"
    )
    parser.add_argument(
        "--num_members", default="1,4,10,20,50", help="values of K (default: %(default)s)"
    )
    parser.add_argument("--member_modes", default=",".join(MODES), help="which, of %(default)s")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=20.0,
        help="length of an epoch of the whole program (default: %(default)s)",
    )
    parser.add_argument(
        "--matmul_size", type=int, help="rows of matrices (default: what fills the device)"
    )
    parser.add_argument(
        "--device_counts",
        default="1,2,4,8",
        help="devices for which communication is counted (default: %(default)s)",
    )
    suite.add_pytorch_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program with `argv` (default: the process's arguments); returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if any(item.partition("=")[0] == "--suite" for item in argv):
        return suite.main(argv)
    flags = parser()
    args, config = config_lib.parse(flags, argv)

    def run():
        parts = _choices("--parts", args.parts, ALL_PARTS)
        modes = _choices("--member_modes", args.member_modes, MODES)
        numbers = {
            name: _numbers(f"--{name}", getattr(args, name))
            for name in ("num_members", "device_counts")
        }
        if args.repeats < 1:
            raise UserError(f"--repeats = {args.repeats}: must be >= 1")
        if not args.seconds > 0:
            raise UserError(f"--seconds = {args.seconds}: must be > 0")
        if args.matmul_size is not None and args.matmul_size < 1:
            raise UserError(f"--matmul_size = {args.matmul_size}: must be >= 1")
        name = config_lib.config_name(args.config)
        output = Path(storage.path(args.output or f"runs/benchmarks/{name}.json"))
        if output.suffix != ".json":
            raise UserError(f"--output = {str(output)!r}: must end in .json")
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--output = {str(output)!r}: must be writable; {error}") from error
        suite.check_pytorch_flags(args)
        # Other processes measure on the same device.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        # Takes seconds: only once the user's part is right.
        from lpw_jax import experiment
        from lpw_jax.benchmark import history, report
        from lpw_jax.benchmark.measure import measure
        from lpw_jax.devices import compilation, cpu, parallel

        overrides = config_lib.split_flags(argv)[1]
        cpu.share_memory()
        parallel.found()
        with (
            compilation.without_cache(),  # compilation is measured, too
            experiment.pinned(config),
        ):
            for results in measure(
                config,
                parts=parts,
                member_modes=modes,
                repeats=args.repeats,
                seconds=args.seconds,
                matmul_size=args.matmul_size,
                pytorch_code=args.pytorch_code,
                pytorch_python=args.pytorch_python,
                arguments=[f"--config={args.config}", *overrides],
                **numbers,
            ):
                results = {"name": name, **results}
                storage.write_text(output, json.dumps(results, indent=1) + "\n")
                storage.write_text(output.with_suffix(".md"), report.table(results))
        history.add(output, results)
        print(report.table(results))
        print(visible(f"written: {output}"))

    return exit_code(flags.prog, run)


def _choices(flag: str, text: str, allowed: Sequence[str]) -> list[str]:
    chosen = [item for item in text.split(",") if item]
    if not chosen or set(chosen) - set(allowed):
        raise UserError(f"{flag} = {text!r}: must be some of {','.join(allowed)}")
    return chosen


def _numbers(flag: str, text: str) -> list[int]:
    try:
        numbers = [int(item) for item in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise UserError(f"{flag} = {text!r}: must be whole numbers >= 1, with commas between")
    return numbers


if __name__ == "__main__":
    leave(main())
