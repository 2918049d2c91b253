"""Which images look like which: whether arrays that belong together are in the same order."""

import numpy as np
from numpy.typing import NDArray

_SIDE = 8  # blocks on each side; smaller ones see noise and shifts, larger ones no object


def nearest(
    images: NDArray[np.float32], among: NDArray[np.float32]
) -> tuple[NDArray[np.int_], NDArray[np.float32], NDArray[np.float32]]:
    """For each of n images the number of the one in `among` with the highest correlation.

    Both are `blocks` of images.

    Returns:
      numbers [n], the correlations [n], and by how much they are higher than the second highest.
    """
    similarity = images @ among.T
    best = similarity.argmax(axis=1)
    rows = np.arange(len(best))
    highest = similarity[rows, best]
    similarity[rows, best] = -1.0
    return best, highest, highest - similarity.max(axis=1)


def blocks(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What images [N, H, W, C] are recognised by, [N, features]: the colours of 8 x 8 blocks.

    Noise, blur, brightness and contrast matter little. A row has mean 0 and length 1, or is 0 if
    all of an image is one colour.
    """
    count, height, width, channels = images.shape
    rows, columns = (np.linspace(0, size, _SIDE + 1).astype(int) for size in (height, width))
    found = np.empty((count, min(_SIDE, height) * min(_SIDE, width) * channels), np.float32)
    for start in range(0, count, 1000):
        part = images[start : start + 1000].astype(np.float32)
        for axis, edges in ((1, rows), (2, columns)):
            sizes = np.diff(np.unique(edges))
            shape = [-1 if i == axis else 1 for i in range(4)]
            part = np.add.reduceat(part, np.unique(edges)[:-1], axis=axis) / sizes.reshape(shape)
        found[start : start + 1000] = part.reshape(len(part), -1)
    found -= found.mean(axis=1, keepdims=True)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)
