"""Fine-tuning of torchvision's DenseNet-161 on ImageNet with late-phase batch norm, K = 10.

    python -m lpw_jax.main --config configs/imagenet_densenet161.py \\
        --config.model.pretrained=densenet161.safetensors --config.data.manual_dir=DIR

Published: 78.31 +/- 0.01 % top-1 (collapsed model). Not run here.
"""

from configs import imagenet_resnet50


def get_config(variant=""):
    config = imagenet_resnet50.get_config(variant)
    config.model.name = "densenet161"
    return config
