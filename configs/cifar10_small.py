"""The main job at a size for one CPU: WRN-16-1 on CIFAR-10, K = 4, twelve epochs.

    python -m lpw_jax.main --config configs/cifar10_small.py

No published figure. Measured, seed 0: results/cifar10_small and docs/results.md.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.data.name = "cifar10"
    config.model.depth = 16
    config.model.width = 1
    config.train.epochs = 12
    config.train.batch_size = 128
    config.train.learning_rate = 0.1
    config.train.end_learning_rate = 0.001
    config.train.anneal_start = 4
    config.train.anneal_end = 11
    config.train.weight_decay = 5e-4
    config.late_phase.num_members = 4
    config.late_phase.release_epoch = 8
    config.late_phase.coasting = "reference"
    config.late_phase.learning_rate = 0.1
    config.late_phase.weight_decay = 5e-4
    return config
