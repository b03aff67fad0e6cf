"""What the cache holds is verified when it is opened; what is damaged is named, set aside and made anew."""

from __future__ import annotations

import os
import resource
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from robustbench_local.config.schema import ModelConfig
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ModelError, StoreError
from robustbench_local.core.progress import Progress
from robustbench_local.core.training import Schedule
from robustbench_local.data.load import open_data
from robustbench_local.defenses.none import Undefended
from robustbench_local.models import zoo
from robustbench_local.models.build import build_model
from robustbench_local.models.load import load_model
from robustbench_local.storage import checkpoints
from robustbench_local.storage.cache_folder import CACHE_VARIABLE
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.storage.files import whole_file
from robustbench_local.training.builder import ModelBuilder
from robustbench_local.training.trainer import TrainingLoop
from robustbench_local.training.zoo_builder import make

SMALL = {"epochs": 1, "batch": 50, "validation": 1900, "watched": 4}
MODEL = ModelConfig("fast_cnn", schedule=SMALL)


class Record(Progress):
    def __init__(self, at: str = "", do: Callable[[], object] = lambda: None) -> None:
        self.lines: list[str] = []
        self.at, self.do = at, do

    def line(self, text: str) -> None:
        self.lines.append(text)
        if self.at and text.startswith(self.at):
            self.do()

    def count(self, start: str) -> int:
        return sum(line.startswith(start) for line in self.lines)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(zoo, "ZOO", tmp_path / "zoo")
    return tmp_path


def zeroed(whole: bytes) -> bytes:
    """4 KiB of the weights lost, as where a disk did not write a page."""
    return whole[: len(whole) // 2] + bytes(4096) + whole[len(whole) // 2 + 4096 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "4 KiB zeroed": zeroed,
    "a bit": lambda whole: whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:],
    "cut short": lambda whole: whole[:-5000],
    "empty": lambda _: b"",
}


def made(defense: str = "none") -> tuple[str, Record]:
    """The weights of the model that a grid would have, and what was said meanwhile."""
    report = Record()
    builder = ModelBuilder(torch.device("cpu"), "bundled", report)
    return weights_digest(builder.build(builder.spec("mnist", MODEL, defense))), report


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_model_of_the_cache_is_named_set_aside_and_trained_anew(
    folder: Path, damage: Callable[[bytes], bytes]
) -> None:
    first, _ = made()
    (model,) = (folder / "cache/models").glob("*.safetensors")
    content = damage(model.read_bytes())
    model.write_bytes(content)
    with pytest.warns(UserWarning, match=rf"{model.name}.* it is {model.name}[.]damaged now"):
        again, report = made()
    assert again == first and report.count("training") == 1
    assert model.with_name(f"{model.name}.damaged").read_bytes() == content
    assert made()[1].count("training") == 0


def test_models_under_each_others_names_are_noticed(folder: Path) -> None:
    first = made("none")[0], made("adversarial_training")[0]
    one, two = (folder / "cache/models").glob("*.safetensors")
    contents = one.read_bytes(), two.read_bytes()
    one.write_bytes(contents[1])
    two.write_bytes(contents[0])
    with pytest.warns(UserWarning, match="was saved as"):
        assert (made("none")[0], made("adversarial_training")[0]) == first


def test_what_a_defense_learnt_is_verified_as_well(folder: Path) -> None:
    first, _ = made("density_detector")
    (learnt,) = (folder / "cache/fitted").glob("*.safetensors")
    learnt.write_bytes(zeroed(learnt.read_bytes()))
    with pytest.warns(UserWarning, match=f"{learnt.name} is damaged"):
        again, report = made("density_detector")
    assert again == first and report.count("fitting") == 1 and report.count("training") == 0


def test_a_checkpoint_of_before_digests_gets_one_when_it_is_opened(tmp_path: Path) -> None:
    net = build_model("fast_cnn", seed=3)
    path = tmp_path / "models" / "old.safetensors"
    path.parent.mkdir()
    path.write_bytes(safetensors.torch.save(net.state_dict(), {"note": "old"}))
    state = checkpoints.cached(path)
    assert state is not None and all(torch.equal(state[name], value) for name, value in net.state_dict().items())
    assert checkpoints.load(path, name="models/old")[1] == {"note": "old"}
    path.write_bytes(zeroed(path.read_bytes()))
    with pytest.warns(UserWarning, match="old.safetensors is damaged"):
        assert checkpoints.cached(path) is None


@pytest.mark.parametrize("damage", [zeroed, lambda whole: whole[:-9]])
def test_a_damaged_checkpoint_is_refused_wherever_it_is_from(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    net = build_model("fast_cnn", seed=3)
    mine, ours = tmp_path / "mine.safetensors", tmp_path / "zoo" / "mnist" / "none.safetensors"
    for path in (mine, ours):
        checkpoints.save(path, net, {"architecture": "fast_cnn", "recipe": "{}"})
    assert weights_digest(load_model("zoo:mnist/none")) == weights_digest(load_model("fast_cnn", weights=mine))
    for path, spec in ((mine, "fast_cnn"), (ours, "zoo:mnist/none")):
        path.write_bytes(damage(path.read_bytes()))
        words = "install the package again" if path is ours else "Fetch it"
        with pytest.raises(ModelError, match=words):
            load_model(spec, weights=mine if path is mine else None)


def test_a_model_of_the_zoo_under_anothers_name_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "zoo" / "mnist"
    for seed, name in enumerate(("none", "trades")):
        net, notes = build_model("fast_cnn", seed=seed), {"architecture": "fast_cnn"}
        checkpoints.save(folder / f"{name}.safetensors", net, notes)
    os.replace(folder / "trades.safetensors", folder / "none.safetensors")
    with pytest.raises(ModelError, match=r"was saved as 'mnist/trades'.*"):
        load_model("zoo:mnist/none")


def trained(folder: Path, progress: Progress | None = None) -> tuple[dict[str, Any], Path]:
    """The weights that two epochs on a few digits give, and the file that keeps their state."""
    images = open_data("mnist", split="train", source="bundled", n=120)
    schedule = Schedule(epochs=2, batch=40, validation=40, watched=8, lr=0.05)
    trainer = TrainingLoop(images, schedule, folder=folder, progress=progress or Progress())
    net = trainer.fit(build_model("fast_cnn"), Undefended(), Draws(0, images.ids[:1]).stream("train"))
    (file,) = folder.glob("training-*.pt")
    return net.state_dict(), file


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_state_of_training_begins_anew(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    weights, file = trained(tmp_path / "training")
    report = Record()
    trained(tmp_path / "training", report)
    assert report.count("resumed after epoch 2") == 1
    file.write_bytes(damage(file.read_bytes()))
    report = Record()
    with pytest.warns(UserWarning, match=rf"{file.name} is no state of training.* it is {file.name}[.]damaged now"):
        again, _ = trained(tmp_path / "training", report)
    assert report.count("resumed") == 0 and report.count("epoch") == 2
    assert all(torch.equal(again[name], value) for name, value in weights.items())


def test_a_state_of_training_holds_no_pickle_that_runs(tmp_path: Path) -> None:
    weights, file = trained(tmp_path / "training")
    from robustbench_local.storage.drafts import _digest

    content = (2).to_bytes(8) + b"cos\nsystem\n(S'touch ran'\ntR."  # with a digest that is right
    file.write_bytes(_digest(file, content) + content)
    with pytest.warns(UserWarning, match="is no state of training"):
        again, _ = trained(tmp_path / "training")
    assert not Path("ran").exists() and all(torch.equal(again[name], value) for name, value in weights.items())


def test_two_may_train_one_model_at_once(folder: Path) -> None:
    """The second begins and ends while the first measures: both have their figures, which are the same."""
    small: dict[str, Any] = {f"schedule.{key}": value for key, value in SMALL.items()}
    small |= {"source": "bundled", "n": 32, "device": "cpu", "attack": "fgsm"}
    second = []
    report = Record("measuring", lambda: second.append(make("mnist/none", small, Progress())))
    path, first = make("mnist/none", small, report)
    assert second == [(path, first)] and path.exists()
    assert not [file for file in (folder / "cache").rglob("*.safetensors")]


def test_a_state_of_another_version_of_a_defense_is_not_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though all that was written of it says the same."""
    first, _ = made()
    monkeypatch.setattr(Undefended, "version", 7)
    again, report = made()
    assert report.count("training") == 1 and report.count("resumed") == 0
    assert again == first and made()[1].count("training") == 0
    monkeypatch.undo()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    "work",
    [
        lambda folder: trained(folder / "training"),
        lambda folder: checkpoints.save(folder / "a.safetensors", build_model("fast_cnn"), {}),
    ],
    ids=["training", "a checkpoint"],
)
def test_a_full_disk_is_an_error_that_says_so(tmp_path: Path, work: Callable[[Path], object]) -> None:
    """No file of this process may grow beyond a few KiB: what is written then fails as on a full disk."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
            work(tmp_path)
        except StoreError:
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not [file for file in tmp_path.rglob("*.tmp")]


def test_what_killed_writers_left_is_swept_from_every_folder_that_is_written_to(tmp_path: Path) -> None:
    for kind in ("audits", "models", "."):
        left, fresh = (tmp_path / kind / name for name in (".a.json.1-ab.tmp", ".b.json.2-cd.tmp"))
        left.parent.mkdir(exist_ok=True)
        left.touch()
        fresh.touch()
        os.utime(left, (0, 0))
        with whole_file(tmp_path / kind / "new.json") as file:
            file.write(b"{}")
        assert not left.exists() and fresh.exists()


def test_a_folder_removed_meanwhile_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, real, times = tmp_path / "results" / "rows" / "a.npz", open, iter(range(3))

    def removed_first(file: Any, *rest: Any, **more: Any) -> Any:
        if str(file).endswith(".tmp") and next(times, None) is not None:
            target.parent.rmdir()
        return real(file, *rest, **more)

    monkeypatch.setattr("builtins.open", removed_first)
    with whole_file(target) as file:
        np.save(file, np.arange(3))
    assert target.exists()
