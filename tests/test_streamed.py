"""Examples streamed from records: the same pixels however they are asked for, and corrupt ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from imagenet_files import jpeg
from record_files import example, examples, write_records

from lpw_jax.data import imagenet_images
from lpw_jax.data.records import open_split
from lpw_jax.data.streamed import Streamed
from lpw_jax.errors import UserError

NUM, SIZE = 40, 16
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


@functools.cache
def intact_examples():
    """Made on first use: it needs TensorFlow."""
    return examples(NUM)


def crop(encoded, uniform):
    return imagenet_images.training_image(encoded, uniform, size=SIZE, flip=True)


def centre(encoded, uniform):
    del uniform
    return imagenet_images.evaluation_image(encoded, size=SIZE, resize=20)


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Records -> what opens them."""

    def write(records):
        folder = tmp_path_factory.mktemp("records")
        write_records(folder, records, name="photos", split="train", num_files=2)
        return open_split(folder, "photos", "train", num_records=len(records))

    return write


@pytest.fixture(scope="module")
def intact(write):
    return write(intact_examples())


@pytest.fixture(scope="module")
def damaged(write):
    """Numbers 3 and 4 do not decode, and 17 is no image at all."""
    records = list(intact_examples())
    whole = jpeg(np.random.default_rng(1), (90, 91))
    for number, image in {3: whole[: len(whole) // 3], 4: b"", 17: b"a text"}.items():
        records[number] = example(image, number, f"image_{number}.JPEG")
    return write(records)


def source(records, decode=crop, *, seed=0, **options):
    return Streamed(
        records,
        decode,
        name="photos",
        image_shape=(SIZE, SIZE, 3),
        num_classes=1000,
        mean=MEAN,
        std=STD,
        dtype=jnp.float32,
        seed=seed,
        num_draws=imagenet_images.NUM_DRAWS if decode is crop else 1,
        **options,
    )


def images(source, indices, *, epoch=1):
    """Number -> image, of all feeds."""
    indices = np.asarray(indices)
    found = {}
    for row, feed in zip(indices, source.feeds(indices, epoch=epoch), strict=True):
        assert feed["image"].shape == (*row.shape, SIZE, SIZE, 3)
        assert feed["image"].dtype == np.uint8 and feed["valid"].all()
        for number, image, label in zip(
            row.ravel(), feed["image"].reshape(-1, SIZE, SIZE, 3), feed["label"].ravel(),
            strict=True,
        ):  # fmt: skip
            assert label == number
            found[int(number)] = image
    return found


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for number in a:
        np.testing.assert_array_equal(a[number], b[number])


def test_an_image_depends_on_seed_epoch_and_number_only(intact):
    """Neither on the feed's shape nor on what came before: hosts and resumed runs agree."""
    order = np.random.default_rng(0).permutation(NUM)
    whole = images(source(intact), order.reshape(5, 8))
    assert_equal(whole, images(source(intact), order.reshape(2, 2, 5, 2)))
    rest = images(source(intact), order.reshape(5, 8)[3:])
    assert_equal({number: whole[number] for number in rest}, rest)
    halves = [
        images(source(intact), order.reshape(5, 8)[:, part]) for part in (slice(4), slice(4, 8))
    ]
    assert_equal(whole, halves[0] | halves[1])


def test_another_seed_or_epoch_gives_other_crops(intact):
    order = np.arange(NUM).reshape(2, 20)
    first, again = images(source(intact), order), source(intact, seed=1)
    for other in (images(source(intact), order, epoch=2), images(again, order)):
        differing = [number for number in first if (first[number] != other[number]).any()]
        assert len(differing) > 0.9 * NUM


def test_held_out_examples_are_numbered_from_their_first(intact):
    part = source(intact.part(30, 10), centre)
    whole = images(source(intact, centre), np.arange(NUM)[None])
    feed = next(part.feeds(np.arange(10)[None], epoch=0))
    np.testing.assert_array_equal(feed["image"], [whole[30 + i] for i in range(10)])
    assert len(part) == 10 and feed["label"].tolist() == list(range(30, 40))


def test_minus_one_stands_for_no_example(intact):
    feed = next(source(intact, centre).feeds(np.array([[5, -1, 6, -1]]), epoch=0))
    assert feed["valid"].tolist() == [True, False, True, False]
    assert not feed["image"][1].any() and feed["image"][0].any()
    assert feed["label"][[0, 2]].tolist() == [5, 6]


def test_a_batch_is_normalised_on_the_device(intact):
    photos = source(intact, centre)
    feed = next(photos.feeds(np.arange(4)[None], epoch=0))
    batch = jax.jit(photos.batch)((), feed, np.int32(0))
    assert batch["image"].dtype == jnp.float32 and photos.resident == ()
    expected = (feed["image"] / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(batch["image"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(batch["label"], feed["label"])


def test_a_corrupt_image_is_an_error_that_names_it(damaged):
    feeds = source(damaged).feeds(np.arange(NUM).reshape(4, 10)[::-1], epoch=1)
    next(feeds), next(feeds)  # numbers 20 to 39
    with pytest.raises(
        UserError, match=r"photos: image_17\.JPEG \(image 17\) is corrupt: .*skip_c"
    ):
        next(feeds)


def test_corrupt_images_are_replaced_in_training(damaged):
    told = []
    photos = source(damaged, skip_corrupt=True, replace_corrupt=True, on_corrupt=told.append)
    order = np.arange(NUM).reshape(4, 2, 5)
    feeds = list(photos.feeds(order, epoch=1))
    assert len(photos.corrupt) == 3 and len(told) == 3
    assert [message.split()[1] for message in sorted(told)] == [
        "image_17.JPEG", "image_3.JPEG", "image_4.JPEG"
    ]  # fmt: skip
    assert all(feed["valid"].all() for feed in feeds)
    expected = order.copy()
    expected[0, 0, 3:] = 5  # the next that decodes, beyond the row's end
    expected[1, 1, 2] = 18
    np.testing.assert_array_equal([feed["label"] for feed in feeds], expected)
    np.testing.assert_array_equal(feeds[0]["image"][0, 3], feeds[0]["image"][1, 0])


@pytest.mark.slow
def test_what_takes_a_corrupt_images_place_does_not_depend_on_what_was_met(damaged):
    order = np.random.default_rng(3).permutation(NUM).reshape(4, 10)
    options = {"skip_corrupt": True, "replace_corrupt": True}
    photos = source(damaged, **options)
    first = list(photos.feeds(order, epoch=4))
    again = list(photos.feeds(order, epoch=4))  # now they are known
    resumed = [
        feed for t in range(4) for feed in source(damaged, **options).feeds(order[t:][:1], epoch=4)
    ]
    for one, other, third in zip(first, again, resumed, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
            np.testing.assert_array_equal(one[name], third[name])
    assert len(photos.corrupt) == 3


def test_corrupt_images_are_left_out_of_an_evaluation(damaged):
    photos = source(damaged, centre, skip_corrupt=True)
    feeds = list(photos.feeds(np.arange(NUM).reshape(4, 10), epoch=0))
    valid = np.concatenate([feed["valid"] for feed in feeds])
    assert np.flatnonzero(~valid).tolist() == [3, 4, 17]


def test_a_minibatch_without_any_image_that_decodes_ends_training(damaged):
    photos = source(damaged, skip_corrupt=True, replace_corrupt=True)
    with pytest.raises(UserError, match="no image of a whole minibatch decodes"):
        list(photos.feeds(np.array([[0, 1], [3, 4]]), epoch=0))


def test_a_record_without_an_image_is_named(write):
    records = write([*intact_examples()[:4], b"", *intact_examples()[5:8]])
    with pytest.raises(UserError, match=r"without a name \(image 4\) is corrupt: it lacks image"):
        list(source(records).feeds(np.arange(8)[None], epoch=0))


def test_a_record_that_is_no_example_is_named(write):
    records = write([*intact_examples()[:4], b"\xff" * 20, *intact_examples()[5:8]])
    with pytest.raises(UserError, match=r"\(image 4\) is corrupt: it is no tf\.train\.Example"):
        list(source(records).feeds(np.arange(8)[None], epoch=0))


def test_a_label_outside_of_the_classes_is_an_error(write):
    records = write(
        [*intact_examples()[:4], example(jpeg(np.random.default_rng(0)), 1000, "a.JPEG")]
    )
    with pytest.raises(UserError, match=r"photos: labels must lie in 0\.\.999, found 0\.\.1000"):
        list(source(records).feeds(np.arange(5)[None], epoch=0))


def test_a_damaged_file_is_named_while_images_are_read(tmp_path):
    paths = write_records(tmp_path, intact_examples(), name="photos", split="train", num_files=2)
    data = paths[1].read_bytes()
    paths[1].write_bytes(data.replace(b"image_30.JPEG", b"image_99.JPEG"))
    records = open_split(tmp_path, "photos", "train", num_records=NUM)
    for options in ({}, {"skip_corrupt": True}):
        feeds = source(records, **options).feeds(np.arange(NUM)[None], epoch=0)
        with pytest.raises(UserError, match=paths[1].name):
            next(feeds)
