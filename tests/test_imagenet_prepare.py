"""ImageNet's archives are checked, then prepared as tfds would, labelled by name."""

import functools
import io
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import imagenet_files
import numpy as np
import pytest
from imagenet_files import SYNSETS, TRAIN, VAL, VAL_SYNSETS, val_images, write_train, write_val
from PIL import Image

from lpw_jax.data import __main__ as program
from lpw_jax.data import imagenet_prepare, tfds_convert, tfds_folder, tfds_prepared
from lpw_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
NUMBERS = (7, 3, 50_000, 12)  # not in order, and not the first ones
CLASSES = SYNSETS[::300]


@functools.cache
def originals():
    train = imagenet_files.train_images(CLASSES, 3)
    return train, val_images(NUMBERS)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the archives in `tars`, and what was prepared from them in `tfds`."""
    folder = tmp_path_factory.mktemp("imagenet")
    (folder / "tars").mkdir()
    write_train(folder / "tars", originals()[0])
    write_val(folder / "tars", originals()[1])
    imagenet_prepare.prepare(str(folder / "tfds"), str(folder / "tars"))
    return folder


def examples(folder, split):
    """{file_name: (encoded image, label)} of a prepared split."""
    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(folder).as_data_source(
        split, decoders={"image": tfds.decode.SkipDecoding()}
    )
    return {str(e["file_name"], "utf-8"): (e["image"], int(e["label"])) for e in source}


def test_prepared_images_are_the_original_bytes_with_the_labels_of_their_classes(place):
    prepared = tfds_prepared.find_prepared("imagenet2012", str(place / "tfds"))
    assert prepared.file_format == "array_record"
    assert prepared.split_sizes == {"train": 12, "validation": 4}
    expected = {
        name: (image, SYNSETS.index(synset))
        for synset, images in originals()[0].items()
        for name, image in images
    }
    assert examples(prepared.folder, "train") == expected


def test_validation_labels_follow_the_number_in_the_name(place):
    prepared = tfds_prepared.find_prepared("imagenet2012", str(place / "tfds"))
    labels = [SYNSETS.index(VAL_SYNSETS[number - 1]) for number in NUMBERS]
    expected = {
        name: (image, label) for (name, image), label in zip(originals()[1], labels, strict=True)
    }
    assert len(set(labels)) > 1
    assert examples(prepared.folder, "validation") == expected


def test_what_is_prepared_is_found_and_not_written_again(place):
    info = place / "tfds" / "imagenet2012" / "5.1.0" / "dataset_info.json"
    before = info.stat().st_mtime_ns
    found = imagenet_prepare.find_or_prepare(str(place / "tfds"), "/no/such/folder")
    assert os.fspath(found.folder) == os.fspath(info.parent)
    assert info.stat().st_mtime_ns == before
    assert sorted(os.listdir(place / "tfds" / "imagenet2012")) == ["5.1.0"]


def test_validation_alone_is_enough_unless_training_is_asked_for(tmp_path):
    manual = tmp_path / "downloads" / "manual"  # the default folder
    imagenet_files.make_tars(manual, num_classes=0)
    with pytest.raises(UserError, match=f"holds no {TRAIN}, which training needs"):
        imagenet_prepare.find_or_prepare(str(tmp_path), "", splits=("train", "validation"))
    prepared = imagenet_prepare.find_or_prepare(str(tmp_path), "")
    assert prepared.split_sizes == {"validation": 6}
    with pytest.raises(UserError, match=f"holds no train images.*{TRAIN}.*prepare it again"):
        imagenet_prepare.find_or_prepare(str(tmp_path), "", splits=("train", "validation"))


def test_training_images_alone_are_refused(tmp_path):
    imagenet_files.make_tars(tmp_path, num_val=0)
    with pytest.raises(UserError, match=rf"holds no {VAL}, which every evaluation needs"):
        imagenet_prepare.prepare(str(tmp_path / "tfds"), str(tmp_path))
    assert not (tmp_path / "tfds").exists()


def test_numbers_other_than_the_official_ones_are_told():
    sizes = {"train": 1_281_167, "validation": 50_000}
    assert imagenet_prepare.unofficial(sizes) == ""
    assert imagenet_prepare.unofficial({"validation": 50_000}) == ""
    told = imagenet_prepare.unofficial(sizes | {"train": 183})
    assert told == "183 train images, officially 1,281,167"


def test_wrong_archives_are_named_before_anything_is_written(tmp_path):
    imagenet_files.make_tars(tmp_path, num_classes=0)
    shutil.copy(tmp_path / VAL, tmp_path / TRAIN)
    with pytest.raises(UserError, match=f"{TRAIN}, member .* must be one tar for each class"):
        imagenet_prepare.prepare(str(tmp_path / "tfds"), str(tmp_path))
    assert os.listdir(tmp_path / "tfds") == []


def test_images_that_tfds_is_known_to_repair_are_repaired(tmp_path):
    rng = np.random.default_rng(0)
    cmyk, name = imagenet_files.jpeg(rng, mode="CMYK"), "n01739381_1309.JPEG"
    write_train(tmp_path, {"n01739381": [(name, cmyk)]})
    write_val(tmp_path, val_images((1,)))
    prepared = imagenet_prepare.prepare(str(tmp_path / "tfds"), str(tmp_path))
    ((encoded, label),) = examples(prepared.folder, "train").values()
    assert Image.open(io.BytesIO(encoded)).mode == "RGB"
    assert SYNSETS[label] == "n01739381"


def test_buckets_are_refused_with_what_to_do_instead(tmp_path):
    for call in (imagenet_prepare.prepare, imagenet_prepare.find_or_prepare):
        with pytest.raises(UserError, match=r"data.dir = 'gs://b/t': must be a local.*gcsfuse"):
            call("gs://b/t", str(tmp_path))
        with pytest.raises(UserError, match=r"data.manual_dir = 'gs://b/t': must be a local"):
            call(str(tmp_path), "gs://b/t")


def test_room_on_the_disk_is_checked_first(tmp_path):
    folder = tfds_prepared.root(str(tmp_path)) / "imagenet2012"
    with (
        pytest.raises(UserError, match=r"needs about 1000000.0 GB but its disk has only"),
        tfds_folder.reserved(folder, num_bytes=10**15),
    ):
        pass
    assert not folder.exists()


def test_one_process_writes_at_a_time_and_removes_what_another_left(tmp_path):
    folder = tfds_prepared.root(str(tmp_path)) / "imagenet2012"
    left = folder / "incomplete.ABC_5.1.0"
    left.mkdir(parents=True)
    (left / "shard").write_text("half")
    with tfds_folder.reserved(folder, num_bytes=1):
        assert not left.exists()
        with (
            pytest.raises(UserError, match="another process is writing into"),
            tfds_folder.reserved(folder, num_bytes=1),
        ):
            pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    imagenet_files.make_tars(tmp_path, num_classes=0)
    with pytest.raises(UserError, match="file"):
        imagenet_prepare.prepare(str(tmp_path / "file" / "tfds"), str(tmp_path))


KILLED = """
import os, signal, sys
from tensorflow_datasets.core import writer
from lpw_jax.data import imagenet_prepare

def finalize(self):
    os.kill(os.getpid(), signal.SIGKILL)

writer.Writer.finalize = finalize
imagenet_prepare.prepare(sys.argv[1], sys.argv[2])
"""


@pytest.mark.slow
def test_after_a_kill_nothing_seems_whole_and_preparing_again_works(place, tmp_path):
    arguments = [str(tmp_path), str(place / "tars")]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list((tmp_path / "imagenet2012").glob("incomplete.*"))
    assert tfds_prepared.find_prepared("imagenet2012", str(tmp_path)) is None
    prepared = imagenet_prepare.find_or_prepare(str(tmp_path), str(place / "tars"))
    assert prepared.split_sizes == {"train": 12, "validation": 4}
    assert os.listdir(tmp_path / "imagenet2012") == ["5.1.0"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("No space left on device")])
def test_an_end_while_writing_leaves_nothing(error, place, tmp_path, monkeypatch):
    from tensorflow_datasets.core import writer

    def finalize(self):
        raise error

    monkeypatch.setattr(writer.Writer, "finalize", finalize)
    with pytest.raises((KeyboardInterrupt, UserError), match="^$|No space left on device"):
        imagenet_prepare.prepare(str(tmp_path / "tfds"), str(place / "tars"))
    assert not list((tmp_path / "tfds").glob("imagenet2012"))


@pytest.fixture(scope="module")
def tfrecord(place):
    """What tfds' own builder, with all its defaults, writes."""
    import tensorflow_datasets as tfds

    folder = place / "old"
    config = tfds.download.DownloadConfig(manual_dir=place / "tars", try_download_gcs=False)
    builder = tfds.builder("imagenet2012", data_dir=folder, file_format="tfrecord")
    builder.download_and_prepare(download_config=config)
    return folder


def test_tfrecord_is_refused_with_a_command_that_works(tfrecord, tmp_path, capsys):
    with pytest.raises(UserError, match="must be array_record. Convert it once") as raised:
        imagenet_prepare.find_or_prepare(str(tfrecord), "")
    command = next(line for line in str(raised.value).splitlines() if "python -m" in line)
    new = str(tmp_path / "new")
    arguments = command.replace("NEW", new).split()
    assert arguments[:3] == ["python", "-m", "lpw_jax.data"]
    assert program.main(arguments[3:]) == 0
    assert "12 images" in capsys.readouterr().out
    converted = imagenet_prepare.find_or_prepare(new, "")
    old = tfds_prepared.find_prepared("imagenet2012", str(tfrecord))
    assert converted.split_sizes == old.split_sizes
    images = {name: image for images in originals()[0].values() for name, image in images}
    assert {name: e[0] for name, e in examples(converted.folder, "train").items()} == images
    with pytest.raises(UserError, match="is there already; choose another folder"):
        tfds_convert.convert("imagenet2012", data_dir=str(tfrecord), output_dir=new)


def test_a_damaged_tfrecord_is_named_and_leaves_nothing(tfrecord, tmp_path):
    shutil.copytree(tfrecord / "imagenet2012", tmp_path / "old" / "imagenet2012")
    (path,) = (tmp_path / "old").rglob("*train.tfrecord*")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="train.tfrecord-00000-of-00001 cannot be read"):
        tfds_convert.convert(
            "imagenet2012", data_dir=str(tmp_path / "old"), output_dir=str(tmp_path / "new")
        )
    assert tfds_prepared.find_prepared("imagenet2012", str(tmp_path / "new")) is None


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "lpw_jax.data", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


@pytest.mark.slow
def test_the_program_prepares_tells_the_sizes_and_does_nothing_the_second_time(
    place, tmp_path, capfd
):
    arguments = ["prepare", "imagenet2012", "--data_dir", str(tmp_path / "tfds")]
    arguments += ["--manual_dir", str(place / "tars")]
    first = run(*arguments)
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "tfds" / "imagenet2012" / "5.1.0"
    sizes = ["train 12 images", "validation 4 images"]
    lines = [" ".join(line.split()) for line in first.stdout.splitlines()]
    assert lines[:3] == [f"prepared: {folder}", *sizes]
    assert "12 train images, officially 1,281,167" in lines[3]
    assert "WARNING" not in first.stderr and "port.cc" not in first.stderr  # only progress
    assert program.main(arguments) == 0
    again = capfd.readouterr()
    assert again.out.splitlines()[0] == f"was prepared already: {folder}"
    assert again.err == ""


def test_a_mistake_ends_the_program_with_code_2_before_tensorflow_is_imported(tmp_path):
    code = (
        "import sys; from lpw_jax.data import __main__ as m;"
        "code = m.main(sys.argv[1:]); print('tensorflow' in sys.modules); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "prepare", "imagenet2012", "--data_dir", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stdout == "False\n"
    assert done.stderr.startswith(f"python -m lpw_jax.data: error: {tmp_path} holds no prepared")
    assert "data.manual_dir = " in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [["prepare"], ["prepare", "digits"], ["prepare", "cifar10", "--manual_dir", "x"]]
)
def test_wrong_arguments_end_the_program_with_code_2(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        program.main(arguments)
    assert "error: " in capsys.readouterr().err
