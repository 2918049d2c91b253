"""An own network: a flax module that knows nothing of lpw_jax."""

import flax.linen as nn
import jax


class SmallNet(nn.Module):
    """Two convolutions with layer norm, for images [B, H, W, C] of any size."""

    num_classes: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Normalised images to logits [B, num_classes]."""
        x = images
        for i, features in enumerate((16, 32)):
            x = nn.Conv(features, (3, 3), strides=i + 1, name=f"conv{i}")(x)
            x = nn.relu(nn.LayerNorm(name=f"norm{i}")(x))
        return nn.Dense(self.num_classes, name="head")(x.mean((1, 2)))


def build(num_classes: int) -> nn.Module:
    """What `config.model.name = "network:build"` names."""
    return SmallNet(num_classes)
