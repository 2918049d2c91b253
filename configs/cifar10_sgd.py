"""Base SGD on CIFAR-10, WRN-28-10: the training of `cifar10_bn` without a release.

    python -m lpw_jax.main --config configs/cifar10_sgd.py

Published: 96.16 +/- 0.12 % test accuracy (5 seeds), known only from a third party's summary of the
paper. Not run here.
"""

from configs import cifar10_bn


def get_config(variant=""):
    config = cifar10_bn.get_config(variant)
    config.late_phase.release_epoch = -1
    return config
