"""Base SGD to `cifar10_small`: the same training without a release.

    python -m lpw_jax.main --config configs/cifar10_small_sgd.py

No published figure. Measured, seed 0: results/cifar10_small_sgd and docs/results.md.
"""

from configs import cifar10_small


def get_config():
    config = cifar10_small.get_config()
    config.late_phase.release_epoch = -1
    return config
