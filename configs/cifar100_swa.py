"""Base SWA on CIFAR-100, WRN-28-10: the training of `cifar100_bn_swa` without a release.

    python -m lpw_jax.main --config configs/cifar100_swa.py

Published: 82.46 +/- 0.09 % test accuracy (5 seeds), known only from a third party's summary of the
paper. Not run here.
"""

from configs import cifar100_bn_swa


def get_config(variant=""):
    config = cifar100_bn_swa.get_config(variant)
    config.late_phase.release_epoch = -1
    return config
