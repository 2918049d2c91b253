"""Prepares the data sets once, before the first run.

python -m lpw_jax.data prepare imagenet2012 --data_dir /data/tfds --manual_dir /data/archives
"""

import argparse
from collections.abc import Sequence

from lpw_jax import data, registry
from lpw_jax.command import prog
from lpw_jax.errors import exit_code, leave
from lpw_jax.plain_text import visible

_NAMES = [name for name, known in registry.DATA.items() if known.is_prepared]
_EXAMPLES = """\
examples:
  python -m lpw_jax.data prepare imagenet2012 --data_dir /data/tfds --manual_dir /data/archives
  python -m lpw_jax.data prepare cifar10 --data_dir /data/tfds
  python -m lpw_jax.data convert imagenet2012 --data_dir /data/old --output_dir /data/tfds

ImageNet's archives are ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, from
https://image-net.org/download-images. To evaluate only, the second is enough. CIFAR is downloaded.
Then train with --config.data.dir=/data/tfds. An interrupted command starts from the beginning.
Exit codes: 0 done, 2 an error (the message names it), 75 asked to end, 130 Ctrl-C.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=prog("lpw_jax.data"),
        description="Prepares data sets with tensorflow-datasets.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    prepare = commands.add_parser("prepare", help="prepare a data set, unless it is prepared")
    convert = commands.add_parser(
        "convert", help="rewrite a prepared data set from tfrecord as array_record"
    )
    for command in (prepare, convert):
        command.add_argument("name", help=f"{', '.join(_NAMES)} or another one of tfds")
        command.add_argument(
            "--data_dir",
            metavar="DIR",
            default="",
            help="folder of tensorflow-datasets (default: its own)",
        )
    prepare.add_argument(
        "--manual_dir",
        metavar="DIR",
        default="",
        help="folder of ImageNet's archives (default: downloads/manual in --data_dir)",
    )
    convert.add_argument(
        "--output_dir", metavar="DIR", required=True, help="folder for the rewritten data set"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program with `argv` (default: the process's arguments); returns its exit code."""
    flags = parser()
    args = flags.parse_args(argv)
    known = registry.data(args.name)
    if not known.is_prepared:
        flags.error(f"name: must be {', '.join(_NAMES)} or another one of tfds, not {args.name!r}")
    if args.command == "prepare" and args.manual_dir and not known.archives:
        names = [name for name, other in registry.DATA.items() if other.archives]
        flags.error(f"--manual_dir: only {names[0]} needs archives; {args.name} is downloaded")

    def run():
        data.check_name(args.name, args.data_dir)
        if args.command == "convert":
            from lpw_jax.data import tfds_convert

            prepared = tfds_convert.convert(
                args.name, data_dir=args.data_dir, output_dir=args.output_dir
            )
            _say(f"converted: {prepared.folder}")
        else:
            prepared = _prepare(args.name, args.data_dir, args.manual_dir)
        for split, size in prepared.split_sizes.items():
            _say(f"  {split:<10} {size:>9,} images")
        _note(args.name, prepared.split_sizes)

    return exit_code(flags.prog, run)


def _prepare(name: str, data_dir: str, manual_dir: str):
    from lpw_jax.data import imagenet_prepare, tfds_prepare, tfds_prepared

    there = tfds_prepared.find_prepared(name, data_dir)
    if registry.data(name).archives:
        prepared = imagenet_prepare.find_or_prepare(data_dir, manual_dir)
    elif there:
        prepared = there
    else:
        prepared = tfds_prepare.prepare(name, data_dir=data_dir, url=registry.data(name).url)
    _say(f"{'was prepared already' if there else 'prepared'}: {prepared.folder}")
    return prepared


def _say(text: str) -> None:
    print(visible(text))


def _note(name: str, split_sizes: dict[str, int]) -> None:
    from lpw_jax.data import imagenet_prepare

    if not registry.data(name).archives:
        return
    if "train" not in split_sizes:
        _say("Without training images: enough to evaluate, not to train.")
    if unofficial := imagenet_prepare.unofficial(split_sizes):
        _say(f"Not ImageNet as published, and results will say so: {unofficial}")


if __name__ == "__main__":
    leave(main())
