"""Writes a PNG grid of an augmented batch, to look at what the network sees.

    python scripts/show_batch.py --config configs/cifar10_bn.py --output batch.png

Each column is one training image; the first row shows it as stored (not of ImageNet, whose images
have many sizes), each other row as some step, or epoch, augments it. Any field is overridden as in
training: --config.train.cutout=16.
"""

import argparse
import sys

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from lpw_jax import config as config_lib
from lpw_jax import experiment, streams
from lpw_jax.data import Dataset, epoch_order
from lpw_jax.errors import UserError


def batch_grid(
    config: ConfigDict, dataset: experiment.AnyDataset, *, columns: int, steps: int
) -> np.ndarray:
    """Stored images (if there are such) over their augmentations: uint8 [rows H, columns W, C].

    The images are the first of the first epoch's order, as training's first `steps` steps would
    augment them. They are de-normalised, so a cutout square shows the mean colour.
    """
    source = experiment.train_source(config, dataset)
    index = epoch_order(config.seed, 1, len(source))[:columns]
    stored = [dataset.train_images[index]] if isinstance(dataset, Dataset) else []
    batch, data = jax.jit(source.batch), jax.device_put(source.resident)
    mean, std = np.array(dataset.mean), np.array(dataset.std)

    def augmented(step):
        (feed,) = source.feeds(index[None], epoch=step + 1)
        normalized = np.asarray(batch(data, feed, np.int32(step))["image"], np.float32)
        return np.clip(np.rint((normalized * std + mean) * 255), 0, 255).astype(np.uint8)

    rows = [*stored, *map(augmented, range(steps))]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    config_lib.add_config_flags(parser)
    parser.add_argument("--output", default="batch.png", help="the PNG to write")
    parser.add_argument("--columns", type=int, default=12, help="number of images")
    parser.add_argument("--steps", type=int, default=6, help="number of augmented rows")
    parser.add_argument("--scale", type=int, default=3, help="screen pixels for a pixel")
    flags, config = config_lib.parse(parser, sys.argv[1:] if argv is None else argv)
    for name in ("columns", "steps", "scale"):
        if getattr(flags, name) < 1:
            parser.error(f"--{name} must be >= 1, not {getattr(flags, name)}")
    try:
        dataset = experiment.load_dataset(config)
    except UserError as error:
        parser.error(str(error))
    grid = batch_grid(config, dataset, columns=flags.columns, steps=flags.steps)
    height, width, channels = grid.shape
    image = Image.fromarray(grid if channels == 3 else grid[..., 0]).resize(
        (width * flags.scale, height * flags.scale), Image.Resampling.NEAREST
    )
    try:
        image.save(flags.output, format="PNG")
    except OSError as error:
        parser.error(f"--output {flags.output}: {error}")
    print(f"{flags.output}: {flags.columns} images, as stored and at {flags.steps} steps")


if __name__ == "__main__":
    streams.guard()
    main()
