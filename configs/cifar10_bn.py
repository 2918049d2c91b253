"""Late-phase batch norm and head on CIFAR-10: WRN-28-10, K = 10.

    python -m lpw_jax.main --config configs/cifar10_bn.py

Published: 96.46 +/- 0.15 % test accuracy (mean and standard deviation of 5 seeds, collapsed model).
Not run here.
"""

from configs import base


def get_config(variant=""):
    config = base.get_config(variant)
    config.data.name = "cifar10"
    config.model.depth = 28
    config.model.width = 10
    config.train.epochs = 200
    config.train.learning_rate = 0.1
    config.train.end_learning_rate = 0.001
    config.train.anneal_start = 100
    config.train.anneal_end = 180
    config.train.weight_decay = 5e-4
    config.train.cutout = 0
    config.late_phase.num_members = 10
    config.late_phase.release_epoch = 120
    config.late_phase.learning_rate = 0.1
    config.late_phase.weight_decay = 5e-4
    config.late_phase.sigma = 0.0
    config.swa.start_epoch = 0
    return config
