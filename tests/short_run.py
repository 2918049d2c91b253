"""A run on digits with everything in it, short enough for a test."""

import dataclasses
from pathlib import Path

from lpw_jax.data import load_dataset

CONFIGS = Path(__file__).parents[1] / "configs"
DIGITS = str(CONFIGS / "digits_bn.py")
SHORT = [
    "--config.train.epochs=3",
    "--config.late_phase.release_epoch=1",
    "--config.late_phase.num_members=2",
    "--config.late_phase.sigma=0.05",
    "--config.swa.start_epoch=2",
    "--config.train.anneal_start=1",
    "--config.train.anneal_end=2",
    "--config.train.crop_padding=0",  # compiles sooner
]


# All that a run can have, on 256 images: an epoch is 16 minibatches, or 8 cycles of two members.
NOTE = "<script>alert('&amp;')</script>"  # text, whatever it looks like
FULL = [
    *SHORT,
    "--config.train.batch_size=16",
    "--config.data.validation_examples=1181",
    f"--config.data.note={NOTE}",
    "--config.evaluate.every_epochs=1",
    "--config.checkpoint.every_epochs=1",
    "--config.late_phase.member_mode=vmap",  # compiles soonest
]
COMMAND = ["--config", DIGITS, *FULL]


def subset(num_images, size=8):
    """The first digits, shrunk for speed."""
    data = load_dataset("digits", data_dir="")
    step = 32 // size
    images = {
        f"{split}_images": getattr(data, f"{split}_images")[:num_images, ::step, ::step]
        for split in ("train", "test")
    }
    labels = {
        f"{split}_labels": getattr(data, f"{split}_labels")[:num_images]
        for split in ("train", "test")
    }
    return dataclasses.replace(data, **images, **labels)
