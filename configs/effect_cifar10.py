"""Late-phase batch norm and head where the network fits its data: 2,000 small images. CPU, seconds.

    python -m lpw_jax.main --config configs/effect_cifar10.py --config.data.dir=DIR

A perceptron on CIFAR-10's first 2,000 training images at 8x8 pixels, K = 4; rates, decay and the
proportions of the schedule are the published ones, in 60 epochs. 'swa' is the variant with the
published shape of SWA's schedule. The experiment: results/effect, and docs/effect.md.
"""

from configs import base


def get_config(variant=""):
    if variant not in ("", "swa"):
        raise ValueError(f"variant {variant!r}: must be swa, or none")
    config = base.get_config()
    config.model.name = "lpw_jax.models.mlp:build"
    config.model.width = 512
    config.data.name = "lpw_jax.data.few_images:cifar10"
    config.data.image_size = 0
    config.train.epochs = 60
    config.train.batch_size = 50
    config.train.anneal_start = 30
    config.train.anneal_end = 54
    config.train.crop_padding = 1
    config.late_phase.num_members = 4
    config.late_phase.release_epoch = 36
    if variant == "swa":
        config.train.end_learning_rate = 0.05
        config.train.anneal_start = 24
        config.train.anneal_end = 43
        config.late_phase.release_epoch = 30
        config.swa.start_epoch = 49
    return config
