"""Base SWA on CIFAR-10, WRN-28-10: the training of `cifar10_bn_swa` without a release.

    python -m lpw_jax.main --config configs/cifar10_swa.py

Published: 96.48 +/- 0.04 % test accuracy (5 seeds), known only from a third party's summary of the
paper. Not run here.
"""

from configs import cifar10_bn_swa


def get_config(variant=""):
    config = cifar10_bn_swa.get_config(variant)
    config.late_phase.release_epoch = -1
    return config
