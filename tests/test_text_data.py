"""Texts: where they come from, their parts, and how training and evaluation read them."""

import hashlib
import platform
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit

from lpw_jax import registry
from lpw_jax.data import load_dataset, split_order, text_files
from lpw_jax.data.text import Text
from lpw_jax.data.text_sources import Streams, Windows
from lpw_jax.errors import UserError

LENGTH, CONTEXT = 6, 4


def load(name, **options):
    defaults = dict(data_dir="", sequence_length=LENGTH, context=CONTEXT, num_bytes=0)
    return load_dataset(name, **defaults | options)


def numbered(size=2003):
    """A text whose bytes tell their place."""
    found = np.arange(size, dtype=np.int64) % 251
    return Text.divided(
        "text", found.astype(np.uint8), sequence_length=LENGTH, context=CONTEXT, note=""
    )


@pytest.mark.parametrize("name", ["enwik8", "python_sources", "text"])
def test_the_registry_knows_the_texts(name):
    known = registry.data(name)
    assert known.is_text and known.num_classes == 256


@pytest.fixture
def small_enwik8(monkeypatch):
    content = bytes(range(250)) * 40
    monkeypatch.setattr(text_files, "ENWIK8_BYTES", len(content))
    monkeypatch.setattr(text_files, "ENWIK8_MD5", hashlib.md5(content).hexdigest())
    return content


@pytest.mark.parametrize("packed", [False, True])
def test_enwik8_is_divided_90_5_5(packed, small_enwik8, tmp_path):
    if packed:
        with zipfile.ZipFile(tmp_path / "enwik8.zip", "w") as archive:
            archive.writestr("enwik8", small_enwik8)
    else:
        (tmp_path / "enwik8").write_bytes(small_enwik8)
    found = load("enwik8", manual_dir=str(tmp_path))
    parts = [found.train, found.validation, found.test]
    assert [len(part) for part in parts] == [9000, 500, 500]
    assert np.concatenate(parts).tobytes() == small_enwik8
    assert found.identity()["num_test"] == 84  # of six bytes


def test_enwik8_of_another_content_is_refused(small_enwik8, tmp_path):
    where = f"data.manual_dir = '{tmp_path}'"
    with pytest.raises(UserError, match=f"{where}: must hold enwik8.zip or enwik8"):
        load("enwik8", manual_dir=str(tmp_path))
    for content in (small_enwik8[:-1], small_enwik8 + b"x", b"y" + small_enwik8[1:]):
        (tmp_path / "enwik8").write_bytes(content)
        with pytest.raises(UserError, match="enwik8 must hold enwik8, 10,000 bytes with MD5"):
            load("enwik8", manual_dir=str(tmp_path))
    (tmp_path / "enwik8").unlink()
    (tmp_path / "enwik8.zip").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"enwik8\.zip cannot be read"):
        load("enwik8", manual_dir=str(tmp_path))


def test_the_real_enwik8_has_the_published_split():
    held_out = text_files.ENWIK8_BYTES // 20
    assert (text_files.ENWIK8_BYTES - 2 * held_out, held_out) == (90_000_000, 5_000_000)


def test_pythons_sources_are_real_and_told_with_their_version():
    found = load("python_sources", num_bytes=100_000)
    again = load("python_sources", num_bytes=100_000)
    assert found.identity() == again.identity() and len(found.identity()["sha256"]) == 64
    assert platform.python_version() in found.note and "100,000" in found.note
    assert b"import" in found.train.tobytes()
    assert len(found.train) == 90_000 and len(found.test) == len(found.validation) == 5_000


def test_files_and_folders_of_ones_own(tmp_path):
    for name, content in (("b.txt", b"b" * 500), ("a/z.txt", b"z" * 700), ("a/y.txt", b"y" * 800)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    found = load("text", data_dir=str(tmp_path))
    whole = np.concatenate([found.train, found.validation, found.test]).tobytes()
    assert whole == b"b" * 500 + b"y" * 800 + b"z" * 700 and "3 files" in found.note
    assert len(load("text", data_dir=str(tmp_path / "b.txt")).train) == 450
    with pytest.raises(UserError, match="data.dir = '': must be a file of text or a folder"):
        load("text")
    with pytest.raises(UserError, match=r"data.num_bytes = 9999: must be at most the 2,000 bytes"):
        load("text", data_dir=str(tmp_path), num_bytes=9999)
    with pytest.raises(UserError, match="data.sequence_length = 51: .*must have two sequences"):
        load("text", data_dir=str(tmp_path), sequence_length=51)


def test_another_text_split_or_length_is_another_identity():
    digests = [numbered(size).identity()["sha256"] for size in (2003, 2004)]
    assert digests[0] != digests[1] and numbered().identity()["sha256"] == digests[0]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_an_evaluation_scores_every_byte_once_after_its_context(split):
    text = numbered()
    windows, part = Windows(text, split), getattr(text, split).astype(np.int64)
    indices = np.pad(np.arange(len(windows)), (0, 3), constant_values=-1).reshape(1, -1)
    (feed,) = windows.feeds(indices, epoch=0)
    assert feed["valid"].sum() == len(windows) and (feed["label"][~feed["valid"]] == -1).all()
    scored = feed["label"][feed["label"] >= 0]
    np.testing.assert_array_equal(scored, part)
    padded = np.concatenate([np.full(CONTEXT + 1, -1), part, np.full(LENGTH, -1)])
    for i in range(len(windows)):
        before = padded[i * LENGTH : i * LENGTH + CONTEXT + LENGTH]
        np.testing.assert_array_equal(feed["image"][i], before)


@pytest.mark.parametrize("num_members", [1, 3])
def test_minibatches_go_on_where_the_last_one_of_the_member_ended(num_members):
    text, size = numbered(), 4
    streams = Streams(text, seed=3)
    options = dict(batch_size=size, num_members=num_members)
    orders = [streams.order(epoch, **options) for epoch in (1, 1, 2)]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert (orders[0] != orders[2]).any()
    indices = split_order(orders[0], num_microbatches=1, num_devices=1, num_groups=1, **options)[
        :, 0
    ]
    cycles = len(streams) // (size * num_members)
    assert indices.shape == (cycles, num_members, size)
    batch = jit(lambda feed: streams.batch(jnp.asarray(streams.resident), feed, 0))
    seen, previous = [], None
    for number, feed in enumerate(streams.feeds(indices, epoch=1)):
        found = [batch({name: part[k] for name, part in feed.items()}) for k in range(num_members)]
        image, label = (np.stack([f[name] for f in found]) for name in ("image", "label"))
        np.testing.assert_array_equal(image[..., 1:], label[..., :-1])
        if number:  # goes on
            np.testing.assert_array_equal(image[..., 0], previous)
        else:
            assert (image[..., 0] == -1).all()
        previous = label[..., -1]
        seen.append(feed["start"])
    starts = np.concatenate(seen, axis=None)
    assert len(set(starts.tolist())) == len(starts) == cycles * size * num_members
    assert starts.min() >= 0 and starts.max() + LENGTH <= len(text.train)
    expected = text.train[starts[:, None] + np.arange(LENGTH)]
    np.testing.assert_array_equal(label[0, 0], expected[-size * num_members])
