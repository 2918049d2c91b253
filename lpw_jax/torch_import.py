"""Converts pretrained weights of torchvision to this program's own format.

examples:
  python -m lpw_jax.torch_import resnet50 --weights resnet50.safetensors --output r50.safetensors
  python -m lpw_jax.torch_import resnet50 --weights imagenet1k_v1 --output r50.safetensors

Reading a .pth file needs PyTorch: pip install '.[torch]'.
"""

import argparse
from collections.abc import Sequence

import jax

from lpw_jax import console, pretrained, storage, weight_download, weight_files
from lpw_jax.errors import exit_code, leave


def convert(
    model_name: str,
    *,
    weights: str,
    output: str,
    num_classes: int = 1000,
    url: str = weight_download.URL,
) -> None:
    """Writes the network `model_name` to `output`, in our own format.

    `weights` is a file as in `pretrained.load_variables`, or 'imagenet1k_v1' for what torchvision
    publishes, which is then fetched from `url`.

    Raises:
      UserError: the weights cannot be fetched or read, or are not those of the network, or
        `output` cannot be written.
    """
    with weight_files.replacing(storage.path(output)) as temporary:
        if weights == pretrained.PUBLISHED_NAME:
            weight_files.import_torch()  # before anything is fetched that could not be read
            weights = weight_download.fetch(model_name, url=url)
        variables, what = pretrained.load_variables(
            weights, model_name=model_name, num_classes=num_classes
        )
        source = what["source"] or {name: what[name] for name in ("file", "sha256")}
        temporary.write_bytes(
            pretrained.encode_variables(variables, model_name=model_name, source=source)
        )
    size = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    console.say(f"{what['format']} file {what['file']}, SHA-256 {what['sha256']}")
    published = f", torchvision's {what['published']}" if what["published"] else ""
    console.say(f"{output}: {model_name}{published}, {size:,} parameters")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m lpw_jax.torch_import",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", choices=pretrained.PUBLISHED, help="the network")
    parser.add_argument(
        "--weights",
        required=True,
        metavar="FILE",
        help="a state dict (.safetensors, .pth), or imagenet1k_v1 to fetch what torchvision has",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--num_classes", type=int, default=1000, metavar="N", help="outputs of its head (1000)"
    )
    parser.add_argument(
        "--url",
        default=weight_download.URL,
        help="another folder on a server that has torchvision's files",
    )
    args = parser.parse_args(argv)
    return exit_code(
        parser.prog,
        lambda: convert(
            args.model,
            weights=args.weights,
            output=args.output,
            num_classes=args.num_classes,
            url=args.url,
        ),
    )


if __name__ == "__main__":
    leave(main())
