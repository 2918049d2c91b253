"""Examples in memory: a training set that lives on every device, and images to be predicted."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lpw_jax.data import augment


class TrainingSet:
    """A `Source` whose images live on every device and are augmented in the compiled step.

    The augmentation of an example is random by (key, step, its number), so that nothing depends on
    how a minibatch is divided over devices.

    Args:
      images: uint8 [N, H, W, C].
      labels: int32 [N].
      key, crop_padding, flip, cutout, random_erasing, mean, std, dtype: as in `augment.augment`.
    """

    corrupt = frozenset()

    def __init__(self, images: np.ndarray, labels: np.ndarray, *, key: jax.Array, **options: Any):
        self.image_shape = images.shape[1:]
        # The key is an argument of the compiled step, too: another seed is the same program.
        key_data = np.asarray(jax.random.key_data(key))
        self.resident = {"image": images, "label": labels, "key": key_data}
        self._key_impl, self._options = jax.random.key_impl(key), options

    def __len__(self) -> int:
        return len(self.resident["label"])

    def feeds(self, indices: np.ndarray, *, epoch: int) -> Iterator[np.ndarray]:
        """The numbers themselves."""
        yield from indices.astype(np.int32)

    def batch(self, resident: Any, feed: jax.Array, step: jax.Array) -> dict[str, jax.Array]:
        """As in `Source`."""
        key = jax.random.wrap_key_data(resident["key"], impl=self._key_impl)
        keys = augment.example_keys(key, step, feed)
        image = augment.augment(keys, resident["image"][feed], **self._options)
        return {"image": image, "label": resident["label"][feed], "valid": feed >= 0}


class Images:
    """A `Source` of images that are sent to the devices as they are.

    Args:
      images: uint8 [N, H, W, C].
      labels: int32 [N].
      mean, std, dtype: as in `augment.normalize`.
    """

    resident, corrupt = (), frozenset()

    def __init__(self, images: np.ndarray, labels: np.ndarray, **options: Any):
        self.image_shape = images.shape[1:]
        self._images, self._labels, self._options = images, labels, options

    def __len__(self) -> int:
        return len(self._labels)

    def feeds(self, indices: np.ndarray, *, epoch: int) -> Iterator[dict[str, np.ndarray]]:
        """As in `Source`."""
        for index in indices:
            valid = index >= 0
            image = np.zeros((*index.shape, *self.image_shape), self._images.dtype)
            image[valid] = self._images[index[valid]]
            label = np.where(valid, self._labels[index], -1)
            yield {"image": image, "label": label, "valid": valid}

    def batch(
        self, resident: Any, feed: dict[str, jax.Array], step: jax.Array
    ) -> dict[str, jax.Array]:
        """As in `Source`."""
        image = augment.normalize(feed["image"], **self._options)
        return {"image": image, "label": feed["label"].astype(jnp.int32), "valid": feed["valid"]}
