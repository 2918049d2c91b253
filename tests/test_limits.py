"""What a stranger's file can make the program do, by what it declares and by what it is."""

import gzip
import io
import os
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import jax
import numpy as np
import pytest
from image_files import IMAGES, files, png

from lpw_jax.data import archive, imagenet_tars, images, tfds_prepared
from lpw_jax.devices import compilation
from lpw_jax.errors import UserError
from lpw_jax.files import limits, predictions, storage
from lpw_jax.weights import weight_files

FURTHER = [*b"LKxgX"]


def tar(*members):
    """The bytes of a tar with these headers and nothing behind them, and an honest image first."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name, content in files("x"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    honest = buffer.getvalue()[: -tarfile.RECORDSIZE] if not members else buffer.getvalue()
    end = honest.rstrip(b"\0")
    honest = honest[: -(-len(end) // 512) * 512]
    return honest + b"".join(members) + bytes(1024)


def header(kind, size, name="x/a.png", content=None):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    body = b"" if content is None else content + bytes(-len(content) % 512)
    return info.tobuf(tarfile.GNU_FORMAT) + body


def pax(**records):
    lines = b""
    for name, value in records.items():
        line = f" {name.replace('__', '.')}={value}\n".encode()
        size = len(line) + 1
        size = len(line) + len(str(len(line) + len(str(size))))
        lines += str(size).encode() + line
    return header(tarfile.XHDTYPE, len(lines), content=lines)


ZEROS = bytes(8 << 20)
BOMBS = {
    **{
        f"header {chr(kind)}": tar(header(bytes([kind]), len(ZEROS), content=ZEROS))
        for kind in FURTHER
    },
    "many headers": tar(*[header(b"L", 1 << 20, content=bytes(1 << 20))] * 9),
    "many members": tar(*[header(b"0", 0, f"x/{i}.txt") for i in range(300)]),
    "sparse": tar(header(tarfile.GNUTYPE_SPARSE, 0)),
    "sparse of pax": tar(
        pax(GNU__sparse__major=1, GNU__sparse__minor=0, GNU__sparse__realsize=1),
        header(b"0", len(ZEROS), content=b"9999999\n" + ZEROS[8:]),
    ),
    "a size below zero": tar(pax(size=-512), header(b"0", 0)),
    "a size above all": tar(pax(size=10**15), header(b"0", 0)),
}


@pytest.fixture
def small_limits(monkeypatch):
    """Limits in proportion to small files."""
    monkeypatch.setattr(limits, "_FREE", 12 << 20)
    monkeypatch.setattr(limits, "_MAX_HEADERS", 8 << 20)
    monkeypatch.setattr(limits, "_MAX_MEMBERS", 200)


def peak_of(run):
    tracemalloc.start()
    try:
        run()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("form", ["gz", "plain", "imagenet"])
def test_a_tar_that_declares_or_unpacks_to_too_much_is_refused(tmp_path, small_limits, name, form):
    content = BOMBS[name]
    path = storage.path(tmp_path / "LSUN_resize.tar.gz")
    path.write_bytes(gzip.compress(content, 1) if form == "gz" else content)

    def read():
        with pytest.raises(UserError, match=f"^{path}.*; fetch it again"):
            if form == "imagenet":
                with path.open("rb") as file:
                    list(imagenet_tars._members(file, str(path)))
            else:
                archive.read_archive(path, remedy="fetch it again")

    assert peak_of(read) < 12 << 20


def test_an_honest_tar_with_long_names_is_read(tmp_path, small_limits):
    path = storage.path(tmp_path / "LSUN_resize.tar.gz")
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
        with tarfile.open(path, "w:gz", format=form) as file:
            for i, image in enumerate(IMAGES):
                info = tarfile.TarInfo(f"{'folder/' * 20}{'é' * 30}{i}.png")
                content = png(image)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
        np.testing.assert_array_equal(archive.read_archive(path, remedy=""), IMAGES)


def packed(content, **entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, value in {"a.npy": content, **entries}.items():
            file.writestr(name, value)
    return buffer.getvalue()


def npy(shape, size):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue() + bytes(size)


ZIPS = {
    "bomb": packed(npy((5 << 20,), 20 << 20)),
    "many small ones": packed(b"", **{f"{i}.npy": npy((1 << 20,), 4 << 20) for i in range(6)}),
    "bomb of torch": packed(b"", **{"archive/data/0": bytes(20 << 20)}).replace(b"a.npy", b"a.txt"),
    "many entries": packed(npy((1,), 4), **{str(i): "" for i in range(2_000)}),
}


@pytest.mark.parametrize("name", ZIPS)
@pytest.mark.parametrize("reader", ["weights", "predictions"])
def test_a_zip_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch, name, reader):
    monkeypatch.setattr(limits, "_FREE", 12 << 20)
    monkeypatch.setattr(limits, "_MAX_HEADERS", 50_000)
    path = storage.path(tmp_path / "weights.npz")
    path.write_bytes(ZIPS[name])

    def read():
        with pytest.raises(UserError, match=f"^{path}.*(must unpack to at most|list of entries)"):
            if reader == "weights":
                weight_files.decode(path.read_bytes(), path)
            else:
                predictions.load(path, ["a"], name="test", data=None)

    assert peak_of(read) < 6 << 20


def test_a_shape_that_is_not_there_takes_no_memory(tmp_path):
    path = storage.path(tmp_path / "weights.npz")
    path.write_bytes(packed(npy((1 << 40,), 64)))
    with pytest.raises(UserError, match=f"^{path} cannot be read"):
        weight_files.decode(path.read_bytes(), path)


@pytest.mark.parametrize("content", [b"[" * 200_000, b" " * (2 << 20) + b"{}", b'{"a":' * 100_000])
def test_json_is_limited_in_depth_and_size(tmp_path, monkeypatch, content):
    monkeypatch.setattr(limits, "_MAX_JSON", 1 << 20)
    folder = tmp_path / "cifar10" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_bytes(content)
    with pytest.raises(UserError, match="dataset_info.json is not a readable .*(deep|most)"):
        tfds_prepared.find_prepared("cifar10", str(tmp_path))
    header = struct.pack("<Q", len(content) + 1) + b"{" + content
    with pytest.raises(UserError, match="cannot be read: .*"):
        weight_files.decode(header, storage.path(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("side", [9_500, 12_000, 60_000])
def test_images_of_a_hundred_megapixels_are_refused_before_they_are_decoded(side):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    content = png(IMAGES[0])
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    content = start + struct.pack(">I", zlib.crc32(chunk)) + content[33:]
    with pytest.raises(UserError, match="x is not a readable image: .*pixels"):
        images.decode_any(content, "x", "remove it", side=32)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707, 0o1777])
def test_a_cache_that_others_can_write_to_is_not_used(tmp_path, monkeypatch, capsys, mode):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    folder = tmp_path / "lpw_jax" / "xla"
    folder.mkdir(parents=True)
    folder.chmod(mode)
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        compilation.use_cache()
        assert jax.config.jax_compilation_cache_dir is None
        shown = capsys.readouterr().err
        assert shown.startswith("warning: compiled programs are not kept") and "chmod" in shown
        folder.chmod(0o700)
        compilation.use_cache()
        assert jax.config.jax_compilation_cache_dir == str(folder)
        folder.chmod(mode)  # one that the user has set is used, and warned of
        compilation.use_cache()
        assert jax.config.jax_compilation_cache_dir == str(folder)
        assert f"{folder}: other users can write" in capsys.readouterr().err
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_a_cache_of_another_user_or_in_a_folder_of_all_is_not_used(tmp_path, monkeypatch):
    folder = tmp_path / "lpw_jax" / "xla"
    folder.mkdir(mode=0o700, parents=True)
    assert compilation._unsafe(folder) == ""
    (tmp_path / "lpw_jax").chmod(0o777)
    assert "lpw_jax: other users can write" in compilation._unsafe(folder)
    (tmp_path / "lpw_jax").chmod(0o1777)  # where only owners can rename, as in /tmp
    assert compilation._unsafe(folder) == ""
    if os.getuid():
        monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    else:
        os.chown(folder, 1, -1)
    assert f"{folder} belongs to another user" in compilation._unsafe(folder)


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_a_cache_that_a_program_made_is_its_users_alone(tmp_path, monkeypatch, capsys, umask):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new" / "caches"))
    before, mask = jax.config.jax_compilation_cache_dir, os.umask(umask)
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        compilation.use_cache()
        used = jax.config.jax_compilation_cache_dir
    finally:
        os.umask(mask)
        jax.config.update("jax_compilation_cache_dir", before)
    assert capsys.readouterr().err == ""
    assert used == str(tmp_path / "new" / "caches" / "lpw_jax" / "xla")
