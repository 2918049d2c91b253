"""Late-phase layer norms and head of an own network, on an own folder of images. CPU, a minute.

    cd examples/own_network
    python make_images.py images
    python -m lpw_jax.main --config config.py

The test accuracy is over 90 %.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration: base's, and what is different here."""
    config = base.get_config()
    config.model.name = "network:build"  # network.py in the current directory
    config.data.name = "image_folder"
    config.data.dir = "images"
    config.data.image_size = 8
    config.train.epochs = 20
    config.train.batch_size = 32
    config.train.learning_rate = 0.1
    config.train.anneal_start = 10
    config.train.anneal_end = 20
    config.train.crop_padding = 1
    config.train.flip = False
    config.late_phase.patterns = ("norm.*/(scale|bias)", "head/.*")
    config.late_phase.num_members = 4
    config.late_phase.release_epoch = 12
    config.late_phase.sigma = 0.1
    config.late_phase.learning_rate = 0.05
    # The mean of the members' gradients. Their sum, as published, is too long a step for this
    # network: batch norm forgives that, layer norm does not.
    config.late_phase.shared_grad_scale = 1 / config.late_phase.num_members
    return config
