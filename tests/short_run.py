"""A run on digits with everything in it, short enough for a test."""

from pathlib import Path

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
]
