"""The program that converts torchvision's weights, and how it fetches them."""

import dataclasses
import functools
import hashlib
import http.server
import threading

import numpy as np
import pytest
import safetensors.numpy
import torchvision_weights

from lpw_jax import torch_import
from lpw_jax.display import console
from lpw_jax.errors import UserError
from lpw_jax.weights import pretrained, weight_download

CONTENT = b"what torchvision publishes" * 100_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(tmp_path):
    """The address of a folder `published` that an HTTP server on this machine shows."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    folder = tmp_path / "published"
    folder.mkdir()
    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def published(tmp_path, server, monkeypatch):
    """A file that is published as that of resnet50."""
    name = f"resnet50-{DIGEST[:8]}.pth"
    entry = dataclasses.replace(pretrained.PUBLISHED["resnet50"], file=name)
    monkeypatch.setitem(pretrained.PUBLISHED, "resnet50", entry)
    file = tmp_path / "published" / name
    file.write_bytes(CONTENT)
    return file


def test_the_published_files_are_torchvisions():
    files = {p.file: (p.sha256_start, p.accuracy) for p in pretrained.PUBLISHED.values()}
    assert files == {
        "resnet50-0676ba61.pth": ("0676ba61", 76.130),
        "resnet152-394f9c45.pth": ("394f9c45", 78.312),
        "densenet161-8d451a50.pth": ("8d451a50", 77.138),
    }


def test_a_file_is_converted_and_says_where_it_is_from(tmp_path, capsys):
    weights, output = tmp_path / "weights.safetensors", tmp_path / "new" / "ours.safetensors"
    entries = torchvision_weights.zeros("resnet50", 1000)
    entries["bn1.bias"] += np.arange(64, dtype=np.float16)
    safetensors.numpy.save_file(entries, weights)
    arguments = ["resnet50", "--weights", str(weights), "--output", str(output)]
    assert torch_import.main(arguments) == 0
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    shown = capsys.readouterr().out.replace("\n", "")
    assert digest in shown and f"{output}: resnet50, 25,557,032 parameters" in shown
    variables, what = pretrained.load_variables(output, model_name="resnet50", num_classes=1000)
    np.testing.assert_array_equal(variables["params"]["bn_in"]["bias"], np.arange(64))
    assert what["format"] == "lpw_jax" and what["published"] is None
    assert what["source"] == {"file": str(weights), "sha256": digest}
    # What is converted again keeps its source.
    assert torch_import.main([*arguments[:2], str(output), *arguments[3:]]) == 0
    again = pretrained.load_variables(output, model_name="resnet50", num_classes=1000)[1]
    assert again == what
    assert [path.name for path in output.parent.iterdir()] == ["ours.safetensors"]


def test_mistakes_end_with_exit_code_2_and_leave_nothing(tmp_path, capsys):
    weights, output = tmp_path / "weights.safetensors", tmp_path / "ours.safetensors"
    run = functools.partial(torch_import.main)
    assert run(["resnet50", "--weights", str(weights), "--output", str(output)]) == 2
    assert f"error: {weights}: must be a file of weights" in capsys.readouterr().err
    assert run(["resnet50", "--weights", str(weights), "--output", str(tmp_path)]) == 2
    assert f"{tmp_path}: must be a file to write, but is no file" in capsys.readouterr().err
    weights.write_bytes(b"an error page")
    assert run(["resnet50", "--weights", str(weights), "--output", f"{weights}/a"]) == 2
    assert f"error: {weights}/a cannot be " in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run(["vgg16", "--weights", str(weights), "--output", str(output)])
    assert "invalid choice: 'vgg16'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [weights]


def test_published_weights_are_fetched_once_and_kept(tmp_path, server, published, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = weight_download.fetch("resnet50", url=server + "/")
    assert str(path) == str(tmp_path / "cache" / "lpw_jax" / "weights" / published.name)
    assert path.read_bytes() == CONTENT
    published.unlink()
    assert weight_download.fetch("resnet50", url=server) == path
    assert [file.name for file in path.parent.iterdir()] == [published.name]


def test_a_damaged_file_in_the_cache_is_fetched_again(tmp_path, server, published, capsys):
    (tmp_path / published.name).write_bytes(CONTENT[:-1])
    path = weight_download.fetch("resnet50", url=server, folder=tmp_path)
    assert path.read_bytes() == CONTENT
    assert f"{path} is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("on_terminal", [False, True])
def test_fetching_shows_its_progress(tmp_path, server, published, monkeypatch, capsys, on_terminal):
    monkeypatch.setattr(console.terminal, "_force_terminal", on_terminal)
    monkeypatch.setattr(console.terminal, "_width", 200)
    weight_download.fetch("resnet50", url=server, folder=tmp_path)
    shown = capsys.readouterr().out
    assert f"fetching {server}/{published.name}, 3 MB" in shown
    assert ("2.6/2.6 MB" in shown) == on_terminal


def test_what_cannot_be_fetched_leaves_nothing(tmp_path, server, published, capsys):
    folder = tmp_path / "kept"
    fetch = functools.partial(weight_download.fetch, "resnet50", folder=folder)
    published.write_bytes(CONTENT + b"!")
    with pytest.raises(UserError, match=rf"{published.name}: must have a SHA-256 .* {DIGEST[:8]}"):
        fetch(url=server)
    published.unlink()
    with pytest.raises(
        UserError, match=f"{published.name} cannot be fetched: 404 .*--weights FILE"
    ):
        fetch(url=server)
    with pytest.raises(UserError, match="cannot be fetched: .*on a machine with a network"):
        fetch(url="http://127.0.0.1:9")
    with pytest.raises(UserError, match="cannot be fetched"):
        fetch(url="nonsense")
    assert not list(folder.iterdir())


def test_published_weights_are_converted_and_known_as_such(
    tmp_path, server, published, monkeypatch
):
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    entries = torchvision_weights.zeros("resnet50", 1000)
    torch.save({name: torch.from_numpy(array) for name, array in entries.items()}, published)
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    file = published.rename(published.with_name(f"resnet50-{digest[:8]}.pth"))
    entry = dataclasses.replace(pretrained.PUBLISHED["resnet50"], file=file.name)
    monkeypatch.setitem(pretrained.PUBLISHED, "resnet50", entry)
    output = tmp_path / "ours.safetensors"
    arguments = ["resnet50", "--weights", "imagenet1k_v1", "--output", str(output), "--url", server]
    assert torch_import.main(arguments) == 0
    what = pretrained.load_variables(output, model_name="resnet50", num_classes=1000)[1]
    assert what["published"] == "imagenet1k_v1" and what["source"]["sha256"] == digest


def test_without_pytorch_nothing_is_fetched(tmp_path, server, published, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)  # as if not installed
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    output = tmp_path / "ours.safetensors"
    arguments = ["resnet50", "--weights", "imagenet1k_v1", "--output", str(output), "--url", server]
    assert torch_import.main(arguments) == 2
    assert "pip install '.[torch]'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["published"]
