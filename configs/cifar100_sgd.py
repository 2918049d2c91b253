"""Base SGD on CIFAR-100, WRN-28-10: the training of `cifar100_bn` without a release.

    python -m lpw_jax.main --config configs/cifar100_sgd.py

Published: 81.35 +/- 0.16 % test accuracy (5 seeds), known only from a third party's summary of the
paper. Not run here.
"""

from configs import cifar100_bn


def get_config(variant=""):
    config = cifar100_bn.get_config(variant)
    config.late_phase.release_epoch = -1
    return config
