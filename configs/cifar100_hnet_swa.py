"""Late-phase coefficients of templates and head on CIFAR-100: WRN-28-10, K = 10, SWA.

    python -m lpw_jax.main --config configs/cifar100_hnet_swa.py

Published: 82.01 % test accuracy (collapsed model, standard deviation unknown). The rates are those
of cifar100_bn_swa: the published code has no config of this experiment.
Not run here.
"""

from configs import cifar100_bn_swa


def get_config(variant=""):
    config = cifar100_bn_swa.get_config(variant)
    config.late_phase.patterns = ("head/(kernel|bias)",)
    config.late_phase.kind = "templates"
    config.late_phase.template_groups = ("adapter", "conv_block")
    config.late_phase.tied_learning_rate = 0.1
    config.late_phase.tied_weight_decay = 0.0
    return config
