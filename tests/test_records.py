"""Records on disk: which they are, part by part, and what is told when a file is damaged."""

import functools
import os
import shutil
import threading

import numpy as np
import pytest
from etils import epath
from record_files import example, write_records

from lpw_jax.data.records import Records, open_split
from lpw_jax.errors import UserError

NAME, NUM, FILES = "photos", 11, 3


@functools.cache
def examples():
    """Made on first use: it needs TensorFlow."""
    return [example(b"image %d" % i, i, f"name_{i}") for i in range(NUM)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    write_records(folder, examples(), name=NAME, split="train", num_files=FILES)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    """A copy to damage."""
    return shutil.copytree(written, tmp_path / "1.0.0")


def opened(folder, num_records=NUM):
    return open_split(folder, NAME, "train", num_records=num_records)


def damage(folder, number, change):
    path = folder / f"{NAME}-train.array_record-{number:05}-of-{FILES:05}"
    path.write_bytes(change(path.read_bytes()))
    return path


def test_records_stand_in_the_order_of_the_files(written):
    records = opened(written)
    assert len(records) == NUM and [records[i] for i in range(NUM)] == examples()
    assert records[np.int64(NUM - 1)] == examples()[-1]


def test_a_part_has_its_own_numbers(written):
    part = opened(written).part(3, 6)
    assert [part[i] for i in range(len(part))] == examples()[3:9]
    assert part.part(2, 3)[0] == examples()[5] and part.part(2, 3).first == 5
    for number in (-1, 6):
        with pytest.raises(IndexError, match=f"record {number} of 6"):
            part[number]
    with pytest.raises(ValueError, match="records 5 to 6 of 6"):
        part.part(5, 2)


def test_threads_read_at_the_same_time(written):
    records, found = opened(written), {}

    def read(first):
        found[first] = [records[i] for _ in range(50) for i in range(first, NUM, 4)]

    threads = [threading.Thread(target=read, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[i] == examples()[i::4] * 50 for i in range(4))


def test_the_digest_follows_the_content_not_the_order_of_features(written, tmp_path):
    digest = opened(written).digest()
    assert opened(shutil.copytree(written, tmp_path / "elsewhere")).digest() == digest
    reordered = [_reordered(record) for record in examples()]
    assert reordered != examples()
    write_records(tmp_path / "again", reordered, name=NAME, split="train", num_files=FILES)
    assert opened(tmp_path / "again").digest() == digest
    others = [example(b"other", 0, "name_0"), *examples()[1:]]
    write_records(tmp_path / "other", others, name=NAME, split="train", num_files=FILES)
    assert opened(tmp_path / "other").digest() != digest


def _reordered(record):
    """The same example with its features, which are a map, stored the other way round."""
    entries, rest = [], record[2:] if record[1] < 128 else record[3:]
    while rest:  # field 1, of a length below 128
        entries.append(rest[: 2 + rest[1]])
        rest = rest[2 + rest[1] :]
    body = b"".join(reversed(entries))
    return record[: len(record) - len(body)] + body


def test_a_missing_file_is_named(folder):
    (folder / f"{NAME}-train.array_record-00001-of-00003").unlink()
    with pytest.raises(UserError, match=r"lacks its file photos-train\.array_record-00001-of"):
        opened(folder)


def test_a_wrong_number_of_images_is_told(written):
    with pytest.raises(UserError, match="dataset_info.json says 12 images, found 11"):
        opened(written, num_records=12)


@pytest.mark.parametrize("change", [lambda b: b[:-100], lambda b: b"", lambda b: b"x" * len(b)])
def test_a_file_that_is_no_array_record_is_named(folder, change):
    path = damage(folder, 2, change)
    with pytest.raises(UserError, match=f"{path.name}.*prepare"):
        opened(folder)


def test_a_damaged_record_is_named_with_its_file(folder):
    path = damage(folder, 1, lambda b: b.replace(b"image 5", b"image 6"))
    records = opened(folder)  # the first record of each file is as it was
    assert records[4] == examples()[4]
    with pytest.raises(UserError, match=path.name):
        records[5]


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_named(folder):
    path = damage(folder, 0, bytes)
    path.chmod(0)
    with pytest.raises(UserError, match=path.name):
        opened(folder)


def test_a_remote_folder_is_refused():
    with pytest.raises(UserError, match="data.dir = 'gs://bucket/photos.*must be a local folder"):
        opened(epath.Path("gs://bucket/photos/1.0.0"))


def test_more_files_than_a_process_may_open_by_default(written):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        assert len(opened(written)) == NUM
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 64
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_records_open_from_any_paths(written):
    paths = sorted(written.iterdir())
    assert [Records(paths[1:])[i] for i in range(3)] == examples()[4:7]
