"""Fine-tuning of torchvision's ResNet-50 on ImageNet with late-phase batch norm, K = 10.

    python -m lpw_jax.main --config configs/imagenet_resnet50.py \\
        --config.model.pretrained=resnet50.safetensors --config.data.manual_dir=DIR

DIR holds the ILSVRC2012 tars; docs/imagenet.md. `configs/imagenet_resnet50.py:sample` is a small
variant for 2 CPU cores, `:fast` (`configs/base.py`) another for accelerators.

Published: 76.87 +/- 0.03 % top-1 (collapsed model). Not run here.
"""

from configs import base


def get_config(variant=""):
    if variant not in ("", "fast", "sample"):
        raise ValueError(f"variant {variant!r}: must be 'sample', 'fast' or not given")
    config = base.get_config("" if variant == "sample" else variant)
    config.data.name = "imagenet2012"
    config.model.name = "resnet50"
    config.train.epochs = 20
    # The published minibatch of 256 in two microbatches.
    config.train.batch_size = 256
    config.train.num_microbatches = 2
    config.train.learning_rate = 0.001
    # A tenth from the eleventh epoch on.
    config.train.end_learning_rate = 0.0001
    config.train.anneal_start = 9
    config.train.anneal_end = 10
    config.train.weight_decay = 1e-4
    config.train.nesterov = False
    config.train.crop_padding = 0
    config.late_phase.release_epoch = 0
    config.late_phase.num_members = 10
    config.late_phase.coasting = "every_minibatch"
    config.late_phase.learning_rate = 0.001
    config.late_phase.anneal = False
    config.late_phase.divide_shared_rate = True
    config.late_phase.weight_decay = 1e-4
    config.late_phase.sigma = 0.0
    config.late_phase.patterns = ("(.*/)?bn[^/]*/(scale|bias)",)
    config.checkpoint.every_epochs = 1
    config.evaluate.every_epochs = 1
    config.evaluate.member_predictions = False
    if variant == "sample":
        config.train.epochs = 3
        config.train.batch_size = 16
        config.train.anneal_start = 1
        config.train.anneal_end = 2
        config.late_phase.num_members = 2
        config.data.image_size = 64
        config.data.resize = 72
        config.evaluate.batch_size = 50
    return config
