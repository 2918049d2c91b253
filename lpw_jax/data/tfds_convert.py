"""A dataset prepared as tfrecord, once more as array_record, which is read at random."""

import json
import pathlib
import re
import tempfile

from etils import epath

from lpw_jax.data.tfds_folder import UNFINISHED, check_local, reserved
from lpw_jax.data.tfds_prepared import REMEDY, Prepared, find_prepared, root
from lpw_jax.data.tfds_source import import_tensorflow
from lpw_jax.errors import UserError
from lpw_jax.files import limits, storage

_SHARD = re.compile(r".+-(?P<split>\w+)\.tfrecord-\d{5}-of-\d{5}")


def convert(name: str, *, data_dir: str, output_dir: str) -> Prepared:
    """Copies `name` out of `data_dir`, record by record, into `output_dir` (needs TensorFlow).

    The new one has the same shards, in the same order; nothing is decoded.

    Raises:
      UserError: there is nothing to convert, it is damaged, or `output_dir` cannot be written.
    """
    prepared = find_prepared(name, data_dir)
    if prepared is None:
        raise UserError(f"--data_dir: {root(data_dir)} holds no prepared {name}")
    if prepared.file_format != "tfrecord":
        raise UserError(f"--data_dir: {prepared.folder} is {prepared.file_format} already")
    target = root(output_dir) / name
    if find_prepared(name, output_dir) is not None:
        raise UserError(f"--output_dir: {target} is there already; choose another folder")
    for place, field in ((prepared.folder, "--data_dir"), (target, "--output_dir")):
        check_local(place, field=field)
    files = [path for path in sorted(prepared.folder.iterdir()) if storage.is_file(path)]
    with reserved(target, num_bytes=sum(path.stat().length for path in files)):
        temporary = pathlib.Path(
            tempfile.mkdtemp(prefix=UNFINISHED, suffix=prepared.folder.name, dir=target)
        )
        temporary.chmod(0o755)
        _copy(files, epath.Path(temporary), prepared)
        temporary.rename(target / prepared.folder.name)
    return find_prepared(name, output_dir)


def _copy(files: list[epath.Path], folder: epath.Path, prepared: Prepared) -> None:
    from tqdm import tqdm

    sizes = dict.fromkeys(prepared.split_sizes, 0)
    total = sum(prepared.split_sizes.values())
    with tqdm(total=total, desc="Converting", unit=" examples", delay=1) as bar:
        for path in files:
            if shard := _SHARD.fullmatch(path.name):
                copy = folder / path.name.replace(".tfrecord-", ".array_record-")
                with storage.reading(path, REMEDY):
                    num = _copy_shard(path, copy)
                sizes[shard["split"]] = sizes.get(shard["split"], 0) + num
                bar.update(num)
    if sizes != prepared.split_sizes:
        raise UserError(
            f"{prepared.folder}: dataset_info.json says {prepared.split_sizes}, found {sizes}; "
            f"{REMEDY}"
        )
    storage.copy((path for path in files if path.suffix in (".json", ".txt")), folder)
    info = limits.read_json(folder / "dataset_info.json")
    (folder / "dataset_info.json").write_text(
        json.dumps(info | {"fileFormat": "array_record"}, indent=2)
    )


def _copy_shard(source: epath.Path, target: epath.Path) -> int:
    tf = import_tensorflow()
    from array_record.python import array_record_module

    writer = array_record_module.ArrayRecordWriter(str(target), "group_size:1")  # as tfds does
    num = 0
    for record in tf.data.TFRecordDataset(str(source)).as_numpy_iterator():
        writer.write(record)
        num += 1
    writer.close()
    return num
