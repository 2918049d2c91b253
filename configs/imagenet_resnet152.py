"""Fine-tuning of torchvision's ResNet-152 on ImageNet with late-phase batch norm, K = 10.

    python -m lpw_jax.main --config configs/imagenet_resnet152.py \\
        --config.model.pretrained=resnet152.safetensors --config.data.manual_dir=DIR

Published: 78.77 +/- 0.01 % top-1 (collapsed model). Not run here.
"""

from configs import imagenet_resnet50


def get_config(variant=""):
    config = imagenet_resnet50.get_config(variant)
    config.model.name = "resnet152"
    return config
