"""Imports PyTorch weights: of torchvision's networks, or of the published CIFAR code.

examples:
  python -m lpw_jax.torch_import resnet50 --weights resnet50.safetensors --output r50.safetensors
  python -m lpw_jax.torch_import resnet50 --weights imagenet1k_v1 --output r50.safetensors
  python -m lpw_jax.torch_import late_phase --weights model.npz --config configs/cifar10_bn.py \\
      --workdir runs/pytorch/seed0

Weights of torchvision become a file in this program's own format, for model.pretrained. A network
of the published CIFAR code becomes a run, which lpw_jax.evaluate evaluates. The published code's
checkpoint is a pickle of its own classes, so first run these lines in a clone of that code. After
SWA take 'swa_model'; with PyTorch 2.6 or later add weights_only=False to torch.load:

  import dill, numpy, torch
  model = torch.load("final_....pth.tar", map_location="cpu", pickle_module=dill)["model"]
  numpy.savez("model.npz", **{name: t.numpy() for name, t in model.state_dict().items()})

State dicts may be nested in other dicts (state_dict, model, ...), with optimisers beside them, and
names may have the prefixes of wrappers (module., _orig_mod.). Reading a .pth file needs PyTorch:
pip install '.[torch]'.
"""

import argparse
import sys
from collections.abc import Sequence

import jax

from lpw_jax import config as config_lib
from lpw_jax.command import prog
from lpw_jax.display import console
from lpw_jax.errors import UserError, exit_code, leave
from lpw_jax.files import storage
from lpw_jax.weights import pretrained, reference_import, weight_download, weight_files


def convert(
    model_name: str,
    *,
    weights: str,
    output: str,
    num_classes: int = 1000,
    url: str = weight_download.URL,
    key: str = "",
) -> None:
    """Writes the network `model_name` to `output`, in our own format.

    `weights` is a file as in `pretrained.load_variables`, or 'imagenet1k_v1' for what torchvision
    publishes, which is then fetched from `url`; `key` says which of several state dicts in it.

    Raises:
      UserError: the weights cannot be fetched or read, or are not those of the network, or
        `output` cannot be written.
    """
    with weight_files.replacing(storage.path(output)) as temporary:
        if weights == pretrained.PUBLISHED_NAME:
            weight_files.import_torch()  # before anything is fetched that could not be read
            weights = weight_download.fetch(model_name, url=url)
        variables, what = pretrained.load_variables(
            weights, model_name=model_name, num_classes=num_classes, key=key
        )
        source = what["source"] or {name: what[name] for name in ("file", "sha256")}
        temporary.write_bytes(
            pretrained.encode_variables(variables, model_name=model_name, source=source)
        )
    if what["taken"]:
        console.say(what["taken"])
    size = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    console.say(f"{what['format']} file {what['file']}, SHA-256 {what['sha256']}")
    published = f", torchvision's {what['published']}" if what["published"] else ""
    console.say(f"{output}: {model_name}{published}, {size:,} parameters")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    parser = _parser()
    others, overrides = config_lib.split_flags(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(others)

    def run():
        if args.model == "late_phase":
            config = config_lib.load_config(args.config, overrides)
            reference_import.run(
                config, weights=args.weights, workdir=args.workdir, tied=args.tied, key=args.key
            )
            return
        if overrides:
            raise UserError(f"{overrides[0]}: only late_phase has a config")
        convert(
            args.model,
            weights=args.weights,
            output=args.output,
            num_classes=args.num_classes,
            url=args.url,
            key=args.key,
        )

    return exit_code(parser.prog, run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog("lpw_jax.torch_import"),
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    models = parser.add_subparsers(dest="model", required=True, metavar="MODEL")
    for name in pretrained.PUBLISHED:
        model = models.add_parser(name, help="torchvision's", allow_abbrev=False)
        model.add_argument(
            "--weights",
            required=True,
            metavar="FILE",
            help="a state dict (.safetensors, .pth), or imagenet1k_v1 to fetch torchvision's",
        )
        model.add_argument("--output", required=True, metavar="FILE", help="the file to write")
        model.add_argument(
            "--num_classes", type=int, default=1000, metavar="N", help="outputs of its head (1000)"
        )
        model.add_argument(
            "--url",
            default=weight_download.URL,
            help="another folder on a server that has torchvision's files",
        )
    late_phase = models.add_parser("late_phase", help="the published CIFAR code's trained network")
    late_phase.add_argument(
        "--weights",
        required=True,
        metavar="FILE",
        help="its state dict (.npz, .safetensors, .pth)",
    )
    config_lib.add_config_flags(late_phase)
    late_phase.add_argument("--workdir", required=True, metavar="DIR", help="a new folder for it")
    late_phase.add_argument(
        "--tied",
        action="store_true",
        help="take the tied copy of a network that was not released, not the members",
    )
    for program in models.choices.values():
        program.add_argument(
            "--key",
            default="",
            metavar="NAME",
            help="which state dict, in a file with several: what its names begin with, as in "
            "model_ema; '.' for the one in no other",
        )
    return parser


if __name__ == "__main__":
    leave(main())
