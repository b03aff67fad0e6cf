"""Labels by the numbers of a model's classes: by name, never by luck."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks._photographs import photograph
from robustbench_local.core.errors import DataError
from robustbench_local.data.load import open_data
from robustbench_local.data.numbering import renumbered


def test_classes_take_the_numbers_of_their_names(tmp_path: Path) -> None:
    for k, kind in enumerate(("cat", "dog", "emu")):
        (tmp_path / kind).mkdir()
        photograph(k, 20, 20).save(tmp_path / kind / "0.png")
    name = f"folder:{tmp_path}"
    wanted = ["emu", "ant", "dog", "cat"]
    images = open_data(name, classes=wanted)
    assert images.classes == tuple(wanted) and images.labels.tolist() == [3, 2, 0]
    assert images.digest != open_data(name).digest
    (tmp_path / "classes.txt").write_text("dog\ncat\nemu\nfox\n")
    with pytest.raises(DataError, match="fox"):
        open_data(name, classes=wanted)
    (tmp_path / "classes.txt").write_text("dog\ncat\nemu\n")
    assert open_data(name, classes=wanted).labels.tolist() == [2, 3, 0]  # pictures in the order of classes.txt


def test_a_class_that_the_model_does_not_know_is_an_error_that_lists_the_nearest() -> None:
    labels = np.arange(3)
    with pytest.raises(DataError) as raised:
        renumbered("folder:x", labels, ("cats", "dog", "zebra"), ["cat", "dog"])
    assert 'the 2 given: "cats" (did you mean "cat"?), "zebra".' in str(raised.value)
    with pytest.raises(DataError, match=r"and 15 more"):
        renumbered("folder:x", labels, tuple(f"class {k}" for k in range(20)), ["cat"])
    with pytest.raises(DataError, match='"cat" twice'):
        renumbered("folder:x", labels, ("cat",), ["cat", "dog", "cat"])


def test_classes_called_by_numbers_are_those_numbers() -> None:
    labels = np.array([0, 1, 2])
    words = ["zero", "one", "two"] + [f"word {k}" for k in range(3, 12)]
    assert renumbered("folder:x", labels, ("10", "2", "9"), words)[0].tolist() == [10, 2, 9]  # sorted as text
    assert renumbered("mnist", labels, ("0", "1", "2"), ["2", "0", "1"])[0].tolist() == [1, 2, 0]  # names, where named
    for classes in (("0", "12"), ("0", "01"), ("0", "two"), ("-1", "0")):
        with pytest.raises(DataError, match="not among the 12 given"):
            renumbered("folder:x", labels, classes, words)
