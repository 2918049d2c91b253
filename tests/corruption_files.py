"""Writes a folder of the form of CIFAR-10-C, of any small number of images."""

import numpy as np

from lpw_jax.data.corruptions import CORRUPTIONS, SEVERITIES


def corrupted(images, name):
    """uint8 [5 N, 32, 32, 3]: five severities of noise, none at all for 'fog'."""
    rng = np.random.default_rng(list(name.encode()))
    parts = []
    for severity in range(1, SEVERITIES + 1):
        noise = 0 if name == "fog" else rng.normal(0, 12 * severity, images.shape)
        parts.append(np.clip(images + noise, 0, 255).astype(np.uint8))
    return np.concatenate(parts)


def write(folder, images, labels):
    """The 15 files and labels.npy of images uint8 [N, 32, 32, 3] and integers [N]; the folder."""
    folder.mkdir(exist_ok=True)
    for name in CORRUPTIONS:
        np.save(folder / f"{name}.npy", corrupted(images, name))
    np.save(folder / "labels.npy", np.tile(labels, SEVERITIES))
    return folder
