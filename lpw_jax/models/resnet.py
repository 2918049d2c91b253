"""Residual networks for ImageNet (He et al., 2016) in torchvision's form."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lpw_jax.models import remat, torchvision

# He et al. (2015), fan-out, gain sqrt(2), not truncated.
_he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions; unlike the paper's, the stride is the 3x3's ("V1.5").

    A group's first block has a 1x1 convolution and batch norm as shortcut.
    """

    features: int
    stride: int
    is_first: bool
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, H / stride, W / stride, 4 features]."""
        y = self.conv(self.features, (1, 1), padding=0, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.features, (3, 3), self.stride, padding=1, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y))
        y = self.conv(4 * self.features, (1, 1), padding=0, name="conv3")(y)
        y = self.norm(name="bn3")(y)
        if self.is_first:
            x = self.conv(4 * self.features, (1, 1), self.stride, padding=0, name="conv_shortcut")(
                x
            )
            x = self.norm(name="bn_shortcut")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Bottleneck ResNet: widths 64, 128, 256, 512 (times 4), strides 1, 2, 2, 2.

    Attributes:
      stage_sizes: blocks in each of the four groups.
      num_classes: outputs of the linear head.
      axis_name, dtype, precision, conv_general_dilated, remat: as in `WideResNet`.
    """

    stage_sizes: Sequence[int]
    num_classes: int
    axis_name: str | None = None
    dtype: Any = jnp.float32
    precision: str = "highest"
    conv_general_dilated: Callable[..., jax.Array] | None = None
    remat: str = "none"

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Normalised images [B, H, W, 3] to logits [B, num_classes]."""
        conv, norm = torchvision.layers(self, train=train, kernel_init=_he_normal)
        x = torchvision.stem(images, 64, conv=conv, norm=norm)
        kind = remat.block(Bottleneck, self.remat if train else "none")
        for group, blocks in enumerate(self.stage_sizes):
            for block in range(blocks):
                x = kind(
                    features=64 * 2**group,
                    stride=2 if group > 0 and block == 0 else 1,
                    is_first=block == 0,
                    conv=conv,
                    norm=norm,
                    name=f"group{group}_block{block}",
                )(x)
        return torchvision.head(self, x, bias_init=torchvision.uniform_bias(x.shape[-1]))
