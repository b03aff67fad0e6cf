"""Pictures in Parquet files and in saved Hugging Face data sets: the same pixels and labels as in files."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks._photographs import photograph
from robustbench_local.core.errors import DataError
from robustbench_local.data import own
from robustbench_local.data.images import Images
from robustbench_local.data.load import open_data
from tests.helpers.stored import stored

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
datasets = pytest.importorskip("datasets")

COUNT = 100
NAMES = ["cat", "dog", "emu"]
Save = Callable[..., str]


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUSTBENCH_LOCAL_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


def encoded(k: int, width: int = 24) -> bytes:
    content = io.BytesIO()
    photograph(k, width, 18).save(content, format="PNG")
    return content.getvalue()


def table(count: int = COUNT, first: int = 0, kind: str = "struct", labels: Any = None, names: Any = NAMES) -> Any:
    pictures: list[Any] = [encoded(first + k) for k in range(count)]
    if kind == "struct":
        pictures = [{"bytes": picture, "path": None} for picture in pictures]
    labels = [k % 3 for k in range(count)] if labels is None else labels
    about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    found = arrow.table({"image": pictures, "label": labels})
    return found.replace_schema_metadata({"huggingface": json.dumps(about)}) if names else found


def saved(tables: dict[str, Any], folder: Path) -> str:
    """As `datasets` saves it."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    made = {
        name: datasets.Dataset.from_dict(each.to_pydict(), features=features if each.schema.metadata else None)
        for name, each in tables.items()
    }
    (made[""] if "" in made else datasets.DatasetDict(made)).save_to_disk(folder)
    return f"hf:{folder}"


def right(first: int = 0, count: int = COUNT) -> Any:
    return np.stack([np.asarray(photograph(first + k, 24, 18)).transpose(2, 0, 1) for k in range(count)])


@pytest.mark.parametrize("kind", ["struct", "bytes"])
@pytest.mark.parametrize("rows", [7, 1000])
def test_a_parquet_file_gives_the_pixels_and_labels_of_its_pictures(tmp_path: Path, kind: str, rows: int) -> None:
    parquet.write_table(table(kind=kind), tmp_path / "d.parquet", row_group_size=rows)
    name = f"parquet:{tmp_path / 'd.parquet'}"
    images = open_data(name)
    np.testing.assert_array_equal(stored(images), right())
    assert images.labels.tolist() == [k % 3 for k in range(COUNT)] and images.classes == tuple(NAMES)
    for ids in ([3], [99, 0, 50, 51, 7, 6], list(range(99, -1, -1))):
        np.testing.assert_array_equal(stored(open_data(name, ids=ids)), right()[ids])
    small = open_data(name, crop=[9, 12])
    assert stored(small).shape == (COUNT, 3, 9, 12) and small.digest == open_data(name, crop=[9, 12]).digest


def test_a_saved_data_set_gives_the_same(tmp_path: Path) -> None:
    name = saved({"": table()}, tmp_path / "d")
    images = open_data(name)
    np.testing.assert_array_equal(stored(images), right())
    assert images.classes == tuple(NAMES) and images.labels.tolist() == [k % 3 for k in range(COUNT)]
    parquet.write_table(table(), tmp_path / "d.parquet")
    assert images.digest == open_data(f"parquet:{tmp_path / 'd.parquet'}").digest
    shuffled = datasets.load_from_disk(tmp_path / "d").select([5, 3, 90])
    shuffled.save_to_disk(tmp_path / "e")
    np.testing.assert_array_equal(stored(open_data(f"hf:{tmp_path / 'e'}")), right()[[5, 3, 90]])


@pytest.mark.parametrize("layout", ["hub", "data", "folders", "hf"])
def test_two_splits_share_one_numbering(tmp_path: Path, layout: str) -> None:
    test, train = table(4, labels=list("cbcb"), names=None), table(3, 50, labels=list("abc"), names=None)
    for split, each in (("test", test), ("train", train)):
        place = {
            "hub": tmp_path / f"{split}-00000-of-00001.parquet",
            "data": tmp_path / "data" / f"{split}.parquet",
            "folders": tmp_path / split / "0.parquet",
            "hf": tmp_path / "unused" / split,
        }[layout]
        place.parent.mkdir(exist_ok=True)
        parquet.write_table(each, place)
    name = f"parquet:{tmp_path}" if layout != "hf" else saved({"test": test, "train": train}, tmp_path / "d")
    opened = open_data(name), open_data(name, split="train")
    assert opened[0].classes == opened[1].classes == ("a", "b", "c")
    assert [each.labels.tolist() for each in opened] == [[2, 1, 2, 1], [0, 1, 2]]
    np.testing.assert_array_equal(stored(opened[1]), right(50, 3))
    assert open_data(name, classes=["c", "b", "a"]).labels.tolist() == [0, 1, 0, 1]


def test_files_of_a_folder_follow_each_other_and_those_of_no_split_are_named(tmp_path: Path) -> None:
    for k in range(3):
        parquet.write_table(table(5, 5 * k), tmp_path / f"{k}.parquet")
    images = open_data(f"parquet:{tmp_path}")
    np.testing.assert_array_equal(stored(images), right(0, 15))
    np.testing.assert_array_equal(stored(open_data(f"parquet:{tmp_path}", ids=[14, 2, 8])), right()[[14, 2, 8]])
    (tmp_path / "0.parquet").rename(tmp_path / "test.parquet")
    with pytest.warns(UserWarning, match=r"1\.parquet, 2\.parquet are of no split"):
        assert len(open_data(f"parquet:{tmp_path}")) == 5
    with pytest.warns(UserWarning), pytest.raises(DataError, match="no train split"):
        open_data(f"parquet:{tmp_path}", split="train")


def test_a_changed_table_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "d.parquet"
    parquet.write_table(table(6), file)
    before = open_data(f"parquet:{file}", crop=8)
    parquet.write_table(table(6, 1), file)
    assert open_data(f"parquet:{file}", crop=8).digest != before.digest


FAULTS: dict[str, tuple[Any, str]] = {
    "other columns": (arrow.table({"picture": [b""], "label": [0]}), 'columns label, picture: give one .* "image"'),
    "no labels": (arrow.table({"image": [b""]}), '"label"'),
    "two columns": (arrow.table({"image": [b""], "img": [b""], "label": [0]}), '"image"'),
    "no rows": (table(0), "holds no image"),
    "no picture": (arrow.table({"image": [None, encoded(0)], "label": [0, 0]}), "row 0 holds no image"),
    "a path": (arrow.table({"image": [{"bytes": None, "path": "/etc/hostname"}], "label": [0]}), "only a path"),
    "text": (arrow.table({"image": ["x.png"], "label": [0]}), "row 0 holds no image: str"),
    "damaged picture": (arrow.table({"image": [encoded(0)[:50]], "label": [0]}), "row 0 cannot be read as an image"),
    "another size": (arrow.table({"image": [encoded(0), encoded(1, 20)], "label": [0, 0]}), "row 1 is 20x18"),
    "no label": (table(2, labels=[0, None]), "row 1 has no label"),
    "unlabelled": (table(2, labels=[-1, -1]), "label -1, of 3 classes: a test split without labels"),
    "too high": (table(2, labels=[0, 3]), "label 3, of 3 classes"),
    "fractions": (table(2, labels=[0.0, 1.0], names=None), "label 0.0: give whole numbers, or text"),
    "bool": (table(2, labels=[True, False], names=None), "label True"),
    "beyond int64": (table(1, labels=arrow.array([2**63], arrow.uint64())), "label 9223372036854775808, of 3"),
    "names twice": (table(2, names=["cat", "dog", "cat"]), "have one name"),
    "an id": (table(2, labels=[0, 10**9], names=None), "and not ids"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_table_that_does_not_fit_is_an_error_that_names_it(tmp_path: Path, fault: str) -> None:
    content, said = FAULTS[fault]
    parquet.write_table(content, tmp_path / "d.parquet")
    with pytest.raises(DataError, match=rf"d\.parquet.*{said}"):
        open_data(f"parquet:{tmp_path / 'd.parquet'}")


def test_two_files_that_name_their_classes_in_two_ways_are_an_error(tmp_path: Path) -> None:
    parquet.write_table(table(2), tmp_path / "0.parquet")
    parquet.write_table(table(2, names=["dog", "cat", "emu"]), tmp_path / "1.parquet")
    with pytest.raises(DataError, match=r"1\.parquet names its classes otherwise"):
        open_data(f"parquet:{tmp_path}")


@pytest.mark.parametrize("kind", ["parquet", "hf"])
def test_what_is_no_such_place_is_an_error(tmp_path: Path, kind: str) -> None:
    for content in (None, b"", b"PAR1", b"no table"):
        if content is not None:
            (tmp_path / "x.parquet").write_bytes(content)
        with pytest.raises(DataError, match=r"x\.parquet"):
            open_data(f"{kind}:{tmp_path / 'x.parquet'}")
    with pytest.raises(DataError):
        open_data(f"{kind}:{tmp_path}")


def test_a_saved_data_set_reads_nothing_outside_its_folder(tmp_path: Path) -> None:
    name = saved({"": table(3)}, tmp_path / "d")
    assert len(open_data(f"{name}/../d")) == 3
    shutil.copy(tmp_path / "d" / "data-00000-of-00001.arrow", tmp_path / "out.arrow")
    state = json.loads((tmp_path / "d" / "state.json").read_text())
    for outside in ("../out.arrow", str(tmp_path / "out.arrow")):
        state["_data_files"][0]["filename"] = outside
        (tmp_path / "d" / "state.json").write_text(json.dumps(state))
        with pytest.raises(DataError, match="outside its own folder"):
            open_data(name)


def test_a_split_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    name = saved({"validation": table(3), "train": table(3)}, tmp_path / "d")
    with pytest.raises(DataError, match="has no test split, but validation, train"):
        open_data(name)
    assert len(open_data(f"{name}/validation")) == 3


@pytest.mark.parametrize(("kind", "missing"), [("parquet", "pyarrow"), ("hf", "datasets")])
def test_without_the_library_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(DataError, match=rf"needs {missing}: pip install 'robustbench_local\[data\]'"):
        open_data(f"{kind}:{tmp_path}")


def test_a_library_that_could_run_code_of_a_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "__version__", "14.0.0")
    with pytest.raises(DataError, match=r"version 15 or later, 14\.0\.0"):
        open_data(f"parquet:{tmp_path}")


def test_more_files_than_a_process_may_open_are_read(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    for k in range(60):
        parquet.write_table(table(2, 2 * k), tmp_path / f"{k:02}.parquet")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, before[1]))
    try:
        images = open_data(f"parquet:{tmp_path}")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    np.testing.assert_array_equal(stored(images), right(0, 120))


def test_a_large_table_is_read_through_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet.write_table(table(), tmp_path / "d.parquet", row_group_size=30)
    name = f"parquet:{tmp_path / 'd.parquet'}"
    plain = open_data(name).digest
    monkeypatch.setattr(own, "MOST_IN_MEMORY", 1000)
    assert open_data(name).digest == plain and (tmp_path / "cache" / "pictures").is_dir()


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    at = int(random.integers(len(content)))
    match random.integers(3):
        case 0:
            return content[:at] + bytes([content[at] ^ 1 << int(random.integers(8))]) + content[at + 1 :]
        case 1:
            return content[:at] + random.bytes(8) + content[at + 8 :]
        case _:
            return content[:at]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parquet", "hf"])
def test_a_damaged_table_is_an_error_or_gives_pictures(tmp_path: Path, kind: str) -> None:
    """In a process of its own, which must not die of it."""
    if kind == "parquet":
        parquet.write_table(table(20), tmp_path / "d.parquet")
        file, name = tmp_path / "d.parquet", f"parquet:{tmp_path / 'd.parquet'}"
    else:
        name = saved({"": table(20)}, tmp_path / "d")
        file = tmp_path / "d" / "data-00000-of-00001.arrow"
    whole, random = file.read_bytes(), np.random.default_rng(0)
    refused = same = other = 0
    before = open_data(name).digest
    for _ in range(150):
        file.write_bytes(damaged(whole, random))
        child = os.fork()
        if not child:
            code = 3
            try:
                found: Images = open_data(name)
                code = 1 if found.digest == before else 2
            except DataError:
                code = 0
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 1, 2), code
        refused, same, other = refused + (code == 0), same + (code == 1), other + (code == 2)
    print(f"150 damages of {kind}: {refused} refused, {same} harmless, {other} other pixels or labels")
    assert refused > 60
