"""Writes scikit-learn's handwritten digits as a folder of images, as one has them oneself.

python make_images.py images

Afterwards there are images/train/CLASS/NUMBER.png and images/test/CLASS/NUMBER.png, grey, 8x8.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def main(folder: str, every: int = 5) -> None:
    """Each `every`-th digit is for the test."""
    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    for number, (image, label) in enumerate(zip(pixels, digits.target, strict=True)):
        split = "test" if number % every == 0 else "train"
        place = Path(folder, split, str(label))
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:04}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
