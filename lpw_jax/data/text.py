"""A text as bytes, and its parts for training, validation and test. Imports nothing heavy."""

import dataclasses
import functools
import hashlib
from typing import Any

import numpy as np

from lpw_jax.errors import UserError

NUM_BYTES = 256
BEGIN = -1  # in the place of a byte: nothing was read before it


@dataclasses.dataclass(frozen=True)
class Text:
    """Three parts of one text, uint8 [N] each, one after the other.

    Attributes:
      name: of the data set.
      train, validation, test: the parts.
      sequence_length: T.
      context: bytes before each example that an evaluation reads first.
      note: which text it is; belongs beside every result.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    sequence_length: int
    context: int
    note: str = ""

    num_classes, mean, std, unofficial, class_names = NUM_BYTES, (), (), "", ()

    @classmethod
    def divided(
        cls, name: str, text: np.ndarray, *, sequence_length: int, context: int, note: str
    ) -> "Text":
        """The first 90 % train, the next 5 % are for validation and the last 5 % for the test.

        Raises:
          UserError: a part would be shorter than two examples.
        """
        held_out = len(text) // 20
        if held_out < 2 * sequence_length:
            raise UserError(
                f"data.sequence_length = {sequence_length}: the validation and test parts, each "
                f"5 % of the {len(text):,} bytes of {name}, must have two sequences or more"
            )
        train, validation, test = np.split(text, [len(text) - 2 * held_out, len(text) - held_out])
        return cls(name, train, validation, test, sequence_length, context, note)

    @property
    def num_train(self) -> int:
        """Examples that an epoch has at most."""
        return len(self.train) // self.sequence_length - 1  # where they begin is drawn

    def num_windows(self, split: str) -> int:
        """Examples that cover a part, of which the last may be shorter."""
        return -(-len(getattr(self, split)) // self.sequence_length)

    @property
    def image_shape(self) -> tuple[int]:
        """[T], as networks see it in training."""
        return (self.sequence_length,)

    def identity(self) -> dict[str, Any]:
        """Says which data this is, in JSON's types; `sha256` is over the parts and T."""
        return {"name": self.name, **self._sizes_and_digest}

    @functools.cached_property
    def _sizes_and_digest(self) -> dict[str, Any]:
        digest = hashlib.sha256(f"{self.sequence_length}".encode())
        for split in ("train", "validation", "test"):
            part = getattr(self, split)
            digest.update(f"{split} {len(part)}\n".encode())
            digest.update(np.ascontiguousarray(part).data)
        test = hashlib.sha256(f"{self.sequence_length} {self.context}\n".encode())
        test.update(np.ascontiguousarray(self.test).data)
        return {
            "num_train": self.num_train,
            "num_validation": self.num_windows("validation"),
            "num_test": self.num_windows("test"),
            "sha256": digest.hexdigest(),
            "test_sha256": test.hexdigest(),
        }
