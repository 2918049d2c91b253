"""Writes the collapsed network of a finished run as torchvision's state dict.

python -m lpw_jax.export --workdir DIR --output FILE.safetensors

In PyTorch: model.load_state_dict(safetensors.torch.load_file("FILE.safetensors")).
"""

import argparse
from collections.abc import Sequence

import jax

from lpw_jax import config as config_lib
from lpw_jax import console, loading, pretrained, storage, weight_files
from lpw_jax.errors import UserError, exit_code, leave
from lpw_jax.workdir import Workdir


def export(workdir: str, output: str) -> None:
    """Writes the one network that the members of a run average to as .safetensors to `output`.

    Raises:
      UserError: `workdir` holds no finished training, or one of a network that torchvision does
        not have; `output` cannot be written.
    """
    stored, _ = Workdir(workdir).read_trained()
    config = config_lib.from_dict(stored)
    name = config.model.name
    if name not in pretrained.PUBLISHED:
        raise UserError(
            f"--workdir = {workdir!r}: must hold a network that torchvision has "
            f"({', '.join(pretrained.PUBLISHED)}), but holds {name}"
        )
    with (
        jax.enable_x64(config.train.compute_dtype == "float64"),
        weight_files.replacing(storage.path(output)) as temporary,
    ):
        run = loading.load(workdir)
        temporary.write_bytes(pretrained.encode_torchvision(run.collapsed, model_name=name))
    console.say(f"{output}: {name}, collapsed, as torchvision's state dict")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m lpw_jax.export",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of a finished run")
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="the .safetensors file to write"
    )
    args = parser.parse_args(argv)
    return exit_code(parser.prog, lambda: export(args.workdir, args.output))


if __name__ == "__main__":
    leave(main())
