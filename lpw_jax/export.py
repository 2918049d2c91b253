"""Writes the network of a finished run as a state dict for PyTorch.

python -m lpw_jax.export --workdir DIR --output FILE.safetensors

A network of torchvision is written collapsed, under torchvision's names. A Wide ResNet is written
with all members, under the names of the published CIFAR code. There, build the model as
HYPERWRN(depth, width, num_classes, num_specialists=K, start_tied=False, use_template_bank=[],
hard_sharing=["input_layer", "adapter", "conv_block"]), or for runs of cifar100_hnet with
use_template_bank=["adapter", "conv_block"], hard_sharing=["input_layer", "batchnorm"].

Then load it: model.load_state_dict(safetensors.torch.load_file("FILE.safetensors")).
"""

import argparse
from collections.abc import Sequence

from lpw_jax import experiment, loading, registry
from lpw_jax.command import prog
from lpw_jax.display import console
from lpw_jax.display.results_report import network_name
from lpw_jax.errors import UserError, exit_code, leave
from lpw_jax.files import storage
from lpw_jax.files.workdir import Workdir
from lpw_jax.weights import pretrained, reference_weights, weight_files

NAMES = ("torchvision", "reference")


def export(workdir: str, output: str, *, names: str | None = None) -> None:
    """Writes the network of a run as .safetensors to `output`.

    `names` is 'torchvision' (of its networks; the one that the members average to) or 'reference'
    (of a Wide ResNet; all members, for the published CIFAR code); None chooses by the network.

    Raises:
      UserError: `workdir` holds no finished training, or one that has no such names; `output`
        cannot be written.
    """
    config, _ = Workdir(workdir).read_trained()
    name = config.model.name
    if not (registry.network(name).weight_names or registry.network(name).is_reference):
        raise UserError(f"{workdir!r}: must hold one of the package's networks, not {name}")
    possible = "torchvision" if name in pretrained.PUBLISHED else "reference"
    if names not in (None, possible):
        raise UserError(f"--names = {names!r}: must be {possible!r} for {name}, in {workdir!r}")
    with (
        experiment.pinned(config),
        weight_files.replacing(storage.path(output)) as temporary,
    ):
        run = loading.load(workdir)
        if possible == "torchvision":
            content = pretrained.encode_torchvision(run.collapsed, model_name=name)
            what = f"{name}, collapsed, as torchvision's state dict"
        else:
            reference_weights.check_division(run.stacked)
            content = reference_weights.encode(
                run.stacked, depth=config.model.depth, banks=run.banks
            )
            members = run.num_members
            what = (
                f"{network_name(config.model)}, K = {members}, as the published code's state dict"
            )
        temporary.write_bytes(content)
    console.say(f"{output}: {what}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog=prog("lpw_jax.export"),
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of a finished run")
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="the .safetensors file to write"
    )
    parser.add_argument(
        "--names", choices=NAMES, help="whose names (default: those of the run's network)"
    )
    args = parser.parse_args(argv)
    return exit_code(parser.prog, lambda: export(args.workdir, args.output, names=args.names))


if __name__ == "__main__":
    leave(main())
