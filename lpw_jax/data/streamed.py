"""Examples streamed from records on disk: read, decoded and batched by tf.data, ahead of use.

Records have random access, so that an epoch's order is any list of numbers from outside. Nothing
is shuffled here: a host reads its own rows only, and a resumed run asks for those that are left.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from lpw_jax.data import augment
from lpw_jax.data.dataset import check_labels
from lpw_jax.data.records import Records
from lpw_jax.data.tfds_prepared import REMEDY
from lpw_jax.data.tfds_source import import_tensorflow
from lpw_jax.errors import UserError, first_line

_RECORDS_PER_CALL = 64  # fewer, and each image costs more
_CALLS = 8  # at a time: disks may be far away
_FEEDS_AHEAD = 2


class Streamed:
    """A `Source` of the images in `records`, uint8 until they are on the device.

    Attributes:
      image_shape: [H, W, C].
      resident: (), as nothing stays on the device.
      corrupt: numbers of the corrupt images that were met so far.
    """

    resident = ()

    def __init__(
        self,
        records: Records,
        decode: Callable[[Any, Any], Any],
        *,
        name: str,
        image_shape: tuple[int, int, int],
        num_classes: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        dtype: Any,
        seed: int = 0,
        num_draws: int = 1,
        skip_corrupt: bool = False,
        replace_corrupt: bool = False,
        on_corrupt: Callable[[str], None] = lambda message: None,
    ):
        """Reads and imports nothing yet.

        Args:
          records: each a tf.train.Example with `image` (encoded), `label` and `file_name`.
          decode: TensorFlow function of a scalar string and random numbers, float64 [num_draws]
            in [0, 1); gives uint8 of `image_shape`. num_draws is at least 1, as
            TensorFlow crashes where it takes rows without elements from a batch.
          name: what messages call the records.
          image_shape: [H, W, C].
          num_classes: labels are 0 to num_classes - 1.
          mean, std: per channel, on the scale 0..1.
          dtype: of normalised images.
          seed: an image's random numbers are a function of (seed, epoch, number).
          skip_corrupt: an image that does not decode is left out; otherwise it is an error.
          replace_corrupt: what is left out gives its place to the next example of its feed that
            decodes (row-major, cyclic), as training needs; otherwise to none, as evaluation does.
          on_corrupt: is told of each image that is left out, once.
        """
        self.image_shape = image_shape
        self._records, self._decode, self._name = records, decode, name
        self._num_classes, self._seed, self._num_draws = num_classes, seed, num_draws
        self._normalization = {"mean": mean, "std": std, "dtype": dtype}
        self._skip, self._replace, self._tell = skip_corrupt, replace_corrupt, on_corrupt
        self._met: set[int] = set()

    def __len__(self) -> int:
        return len(self._records)

    @property
    def corrupt(self) -> frozenset[int]:
        return frozenset(self._met)

    def feeds(self, indices: np.ndarray, *, epoch: int) -> Iterator[dict[str, np.ndarray]]:
        """Feeds of the examples `indices` [T, ...]; see `Source`.

        What decodes and what takes its place is a function of the feed's own numbers, seed and
        epoch, not of what was met before, so that resumed and uninterrupted runs agree.

        Yields, T times and read-only:
          `image` uint8 [*indices.shape[1:], H, W, C], `label` int32 and `valid` bool
          [*indices.shape[1:]]. At most two more feeds are made ahead of use.

        Raises:
          UserError: an image does not decode (unless such are skipped), a label is none of the
            classes, or a file cannot be read. Names it.
        """
        tf = import_tensorflow()
        indices = np.asarray(indices, np.int64)
        suspects = self._met.intersection(indices.flat)
        corrupt = self._find_corrupt(sorted(suspects), epoch)
        done = 0
        while done < len(indices):
            rows = self._without(corrupt, indices[done:])
            feeds = self._pipeline(rows, epoch).as_numpy_iterator()
            try:
                while done < len(indices):
                    yield self._checked(next(feeds))  # no name keeps it longer than needed
                    done += 1
            except tf.errors.OpError:
                # The pipeline says neither which example it was nor goes on after it.
                untried = [i for i in indices[done].flat if i >= 0 and i not in corrupt]
                found = self._find_corrupt(untried, epoch)
                if not found:
                    raise
                corrupt |= found

    def batch(self, resident: Any, feed: Any, step: jax.Array) -> dict[str, jax.Array]:
        """Normalises a feed with leading axis [B]; see `Source`."""
        return feed | {"image": augment.normalize(feed["image"], **self._normalization)}

    def _pipeline(self, rows: np.ndarray, epoch: int) -> Any:
        """tf.data of the feeds of `rows` [T, ...], which raises where something cannot be read."""
        tf = import_tensorflow()
        shape = rows.shape[1:]
        key = self._key(epoch)

        def read(numbers):
            encoded, label, uniform = tf.numpy_function(
                functools.partial(self._read, key=key),
                [numbers],
                (tf.string, tf.int32, tf.float64),
            )
            shape = numbers.shape
            return (
                numbers,
                tf.ensure_shape(encoded, shape),
                tf.ensure_shape(label, shape),
                tf.ensure_shape(uniform, (*shape, self._num_draws)),
            )

        def example(number, encoded, label, uniform):
            image = self._image(encoded, uniform)
            return {"image": image, "label": label, "valid": tf.constant(True)}

        def example_or_none(number, encoded, label, uniform):
            image, valid = tf.zeros(self.image_shape, tf.uint8), tf.constant(False)
            none = {"image": image, "label": label, "valid": valid}
            return tf.cond(
                number < 0, lambda: none, lambda: example(number, encoded, label, uniform)
            )

        def feed(batch):
            return {k: tf.reshape(v, shape + tuple(v.shape[1:])) for k, v in batch.items()}

        # All conditions are tf.cond already: to look for others takes a second.
        as_written = tf.autograph.experimental.do_not_convert
        data = tf.data.Dataset.from_tensor_slices(rows.reshape(-1)).batch(_RECORDS_PER_CALL)
        data = data.map(as_written(read), num_parallel_calls=_CALLS, deterministic=True).unbatch()
        data = data.map(
            as_written(example_or_none if (rows < 0).any() else example),
            num_parallel_calls=_num_cpus() + 1,  # one more, as results have to wait in line
            deterministic=True,
        )
        data = data.batch(int(np.prod(shape)), drop_remainder=True)
        options = tf.data.Options()
        options.autotune.enabled = False  # it costs 5 % to find out what is known
        return data.map(as_written(feed)).prefetch(_FEEDS_AHEAD).with_options(options)

    def _read(self, numbers: np.ndarray, *, key: np.uint64) -> tuple[np.ndarray, ...]:
        """Encoded images (bytes [N]), labels (int32 [N]) and random numbers (float64 [N, draws]).

        Images and labels are b'' and -1 for number -1.
        """
        images, labels = np.full(len(numbers), b"", object), np.full(len(numbers), -1, np.int32)
        for i in np.flatnonzero(numbers >= 0):  # one by one, in the processor's cache
            images[i], labels[i] = _parse(self._records[numbers[i]])
        return images, labels, self._uniform(numbers, key)

    def _uniform(self, numbers: np.ndarray, key: np.uint64) -> np.ndarray:
        """float64 [N, draws] in [0, 1). NumPy keeps the generator's raw bits over its versions."""
        generator = np.random.Philox(key=np.array([key, 0], np.uint64))
        state = generator.state
        bits = np.empty((len(numbers), self._num_draws), np.uint64)
        for i, number in enumerate(numbers):  # a new generator each would take five times as long
            state["state"]["key"][1] = max(number, 0)
            generator.state = state
            bits[i] = generator.random_raw(self._num_draws)
        return (bits >> np.uint64(11)) * 2.0**-53

    def _key(self, epoch: int) -> np.uint64:
        return np.random.SeedSequence((self._seed, epoch)).generate_state(1, np.uint64)[0]

    def _image(self, encoded: Any, uniform: Any) -> Any:
        return import_tensorflow().ensure_shape(self._decode(encoded, uniform), self.image_shape)

    def _find_corrupt(self, numbers: list[int], epoch: int) -> set[int]:
        """Those of `numbers` that do not decode in this epoch, tried one by one.

        (A damaged end of a file shows only where an epoch's crop needs it.)
        """
        tf = import_tensorflow()
        found = set()
        for number in map(int, numbers):
            record = self._records[number]
            try:
                self._image(_parse(record)[0], self._uniform([number], self._key(epoch))[0])
            except (tf.errors.OpError, ValueError) as error:
                found.add(number)
                self._report(number, record, error)
        return found

    def _report(self, number: int, record: bytes, error: Exception) -> None:
        reason = first_line(error).partition(" [Op:")[0]
        place = f"image {self._records.first + number}"
        what = f"{self._name}: {_file_name(record)} ({place}) is corrupt: {reason}"
        if not self._skip:
            raise UserError(
                f"{what}; prepare the data from intact files, or set data.skip_corrupt=True to go "
                "on without such images"
            ) from None
        if number not in self._met:
            self._met.add(int(number))
            self._tell(f"{what}; it is left out (data.skip_corrupt)")

    def _without(self, corrupt: set[int], rows: np.ndarray) -> np.ndarray:
        """`rows` [T, ...] with other numbers, or -1, where they are `corrupt`."""
        rows = rows.copy()
        bad = np.isin(rows, list(corrupt))
        for t in np.flatnonzero(bad.reshape(len(rows), -1).any(axis=1)):
            if not self._replace:
                rows[t][bad[t]] = -1
                continue
            places, intact = np.flatnonzero(bad[t]), np.flatnonzero(~bad[t] & (rows[t] >= 0))
            if not intact.size:
                raise UserError(f"{self._name}: no image of a whole minibatch decodes; {REMEDY}")
            following = intact[np.searchsorted(intact, places) % len(intact)]
            rows[t].flat[places] = rows[t].flat[following]
        return rows

    def _checked(self, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        labels = feed["label"][feed["valid"]]
        if labels.size:
            check_labels(labels, num_classes=self._num_classes, where=self._name, remedy=REMEDY)
        return feed


def _parse(record: bytes) -> tuple[bytes, int]:
    """Encoded image and label of a serialized example (ten times as fast as in the graph)."""
    feature = _features(record)
    try:
        return feature["image"].bytes_list.value[0], feature["label"].int64_list.value[0]
    except IndexError:
        raise ValueError("it lacks image or label") from None


def _file_name(record: bytes) -> str:
    with contextlib.suppress(ValueError, IndexError):
        return _features(record)["file_name"].bytes_list.value[0].decode(errors="replace")
    return "a record without a name"


def _features(record: bytes) -> Any:
    example = import_tensorflow().train.Example
    try:
        return example.FromString(record).features.feature
    except Exception as error:  # of protobuf, which has several implementations
        raise ValueError(f"it is no tf.train.Example ({first_line(error)})") from error


def _num_cpus() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
