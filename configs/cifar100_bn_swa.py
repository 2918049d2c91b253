"""Late-phase batch norm and head on CIFAR-100: WRN-28-10, K = 10, SWA.

    python -m lpw_jax.main --config configs/cifar100_bn_swa.py

Published: 83.06 +/- 0.08 % test accuracy (mean and standard deviation of 5 seeds, collapsed model).
Not run here.
"""

from configs import base


def get_config(variant=""):
    config = base.get_config(variant)
    config.data.name = "cifar100"
    config.model.depth = 28
    config.model.width = 10
    config.train.epochs = 200
    config.train.learning_rate = 0.1
    config.train.end_learning_rate = 0.05
    config.train.anneal_start = 80
    config.train.anneal_end = 144
    config.train.weight_decay = 5e-4
    config.train.cutout = 0
    config.late_phase.num_members = 10
    config.late_phase.release_epoch = 100
    config.late_phase.learning_rate = 0.1
    config.late_phase.weight_decay = 5e-4
    config.late_phase.sigma = 0.0
    config.swa.start_epoch = 161
    return config
