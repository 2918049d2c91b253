"""Writes a PNG grid of an augmented batch, to look at what the network sees.

    python scripts/show_batch.py --config configs/cifar10_bn.py --output batch.png

Each column is one training image; the first row shows it as stored, each other row as some step
augments it. Any field is overridden as in training: --config.train.cutout=16.
"""

import argparse
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # runs uninstalled too

from lpw_jax.config import load_config  # noqa: E402
from lpw_jax.data import Dataset, epoch_order, load_dataset  # noqa: E402
from lpw_jax.data.augment import augment, example_keys  # noqa: E402


def batch_grid(
    dataset: Dataset,
    *,
    seed: int,
    crop_padding: int,
    flip: bool,
    cutout: int,
    columns: int,
    steps: int,
) -> np.ndarray:
    """Stored images over their augmentations: uint8 [(1 + steps) H, columns W, 3].

    The images are the first of the first epoch's order. Augmented ones are de-normalised, so a
    cutout square shows the mean colour.
    """
    index = epoch_order(seed, 1, len(dataset.train_labels))[:columns]
    images = dataset.train_images[index]
    mean, std = np.array(dataset.mean), np.array(dataset.std)

    @jax.jit
    def augmented(step):
        return augment(
            example_keys(jax.random.key(seed), step, jnp.asarray(index)),
            jnp.asarray(images),
            crop_padding=crop_padding,
            flip=flip,
            cutout=cutout,
            mean=dataset.mean,
            std=dataset.std,
            dtype=jnp.float32,
        )

    def visible(normalized):
        return np.clip(np.rint((normalized * std + mean) * 255), 0, 255).astype(np.uint8)

    rows = [images, *(visible(np.asarray(augmented(step))) for step in range(steps))]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="a file of configs/")
    parser.add_argument("--output", default="batch.png", help="the PNG to write")
    parser.add_argument("--columns", type=int, default=12, help="number of images")
    parser.add_argument("--steps", type=int, default=6, help="number of augmented rows")
    parser.add_argument("--scale", type=int, default=3, help="screen pixels for a pixel")
    flags, overrides = parser.parse_known_args(argv)
    for name in ("columns", "steps", "scale"):
        if getattr(flags, name) < 1:
            parser.error(f"--{name} must be >= 1, not {getattr(flags, name)}")
    try:
        config = load_config(flags.config, overrides)
        dataset = load_dataset(config.data.name, data_dir=config.data.dir)
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    grid = batch_grid(
        dataset,
        seed=config.seed,
        crop_padding=config.train.crop_padding,
        flip=config.train.flip,
        cutout=config.train.cutout,
        columns=flags.columns,
        steps=flags.steps,
    )
    height, width = grid.shape[:2]
    image = Image.fromarray(grid).resize(
        (width * flags.scale, height * flags.scale), Image.Resampling.NEAREST
    )
    image.save(flags.output, format="PNG")
    print(f"{flags.output}: {flags.columns} images, as stored and at {flags.steps} steps")


if __name__ == "__main__":
    main()
