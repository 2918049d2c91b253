"""Late-phase batch norm and head on scikit-learn's handwritten digits: no download, CPU.

    python -m lpw_jax.main --config configs/digits_bn.py

Measured on 2 CPU cores, seed 0: results/digits_bn, and docs/results.md.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.data.name = "digits"
    config.model.depth = 10
    config.model.width = 1
    config.train.epochs = 12
    config.train.batch_size = 64
    config.train.learning_rate = 0.1
    config.train.end_learning_rate = 0.001
    config.train.anneal_start = 4
    config.train.anneal_end = 11
    config.train.weight_decay = 5e-4
    config.train.crop_padding = 2
    # A mirrored digit is another sign.
    config.train.flip = False
    config.late_phase.num_members = 4
    config.late_phase.release_epoch = 8
    config.late_phase.learning_rate = 0.1
    config.late_phase.weight_decay = 5e-4
    return config
