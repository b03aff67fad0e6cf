"""Nearly right input with something hostile in it: the outcome is an error of ours or a right answer, soon and small.

2,000 cases, always the same, in the quick tests; `make fuzz` sets ROBUSTBENCH_LOCAL_FUZZ=10 and draws ten times as
many, new ones each time. Counts are printed.
"""

from __future__ import annotations

import math
import os
import resource
import shutil
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import robustbench_local as rbl
from robustbench_local.core.errors import RobustBenchError, StoreError
from robustbench_local.core.threat import parse_number
from robustbench_local.data.load import open_data
from robustbench_local.defenses.randomized_smoothing import certify
from robustbench_local.grids.cell import Cell, Task
from robustbench_local.grids.plan import read_config, resolve
from robustbench_local.models.build import build_model
from robustbench_local.storage.archive import NAME
from robustbench_local.storage.checkpoints import load, restore
from robustbench_local.storage.packing import pack
from robustbench_local.storage.store import Store
from robustbench_local.training.builder import ModelBuilder
from tests.helpers.rows import a_row, stored
from tests.helpers.small_networks import layer

TIMES = int(os.environ.get("ROBUSTBENCH_LOCAL_FUZZ", "1"))
SECONDS, MEBIBYTES = 10.0, 1024  # of the processor, for one case; of memory, for all of one test
HOSTILE: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    3,
    2**31,
    2**63,
    -(2**63) - 1,
    10**400,
    0.0,
    -0.0,
    0.5,
    1.5,
    -0.1,
    1e-320,
    1e308,
    math.nan,
    math.inf,
    -math.inf,
    3j,
    "",
    " ",
    "none",
    "abc",
    "1",
    "1/0",
    "nan",
    "inf",
    "1e999",
    "../..",
    "a:b:c",
    ":",
    "\x00",
    "\x1b[31m",
    "é" * 50,
    "a" * 5000,
    b"pgd",
    [],
    [None],
    [0],
    [1.5],
    ["pgd"],
    (),
    (1, 2),
    {},
    {"a": 1},
    {1},
    object(),
    int,
    len,
    Path("nowhere"),
    np.int64(3),
    np.float32(0.5),
    np.nan,
    np.arange(3),
    np.ones((2, 2)),
    np.array(["a"]),
    torch.tensor(1),
    torch.zeros(0),
    torch.ones(4),
    torch.ones(4, dtype=torch.bool),
    slice(None),
    slice("a"),
    slice(0, 2, -1),
    range(3),
    Ellipsis,
    torch.float32,
    torch.device("cpu"),
    nn.Identity(),
    nn.Linear(2, 2),
]
hostile = st.one_of(
    st.sampled_from(HOSTILE),
    st.integers(-3, 4),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.lists(st.integers(-2, 5), max_size=5),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
Fuzzed = Callable[[Callable[..., Any]], Callable[..., Any]]
TOTAL, WANTED = Counter[str](), Counter[str]()


def cases(what: str, count: int, **strategies: st.SearchStrategy[Any]) -> Fuzzed:
    """A test of one case, run on so many."""
    WANTED[what] = count * TIMES

    def wrap(test: Callable[..., Any]) -> Callable[..., Any]:
        whole = settings(
            max_examples=count * TIMES,
            derandomize=TIMES == 1,
            database=None,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )
        return whole(given(**strategies)(test))

    return wrap


@pytest.fixture(autouse=True, scope="module")
def counted() -> Iterator[None]:
    """What ran in this process ran as often as it should, and was neither all right nor all wrong."""
    yield
    for what, wanted in WANTED.items():
        tried, refused = TOTAL[what], TOTAL[f"{what} refused"]
        if tried:
            print(f"fuzz: {what}: {tried} cases, {refused} refused, {tried - refused} right")
            assert tried >= wanted and 0 < refused < tried


def outcome(what: str, ask: Callable[[], Any]) -> Any:
    """What `ask` gives, or None where it is an error of ours."""
    before, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    TOTAL[what] += 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ask()
    except RobustBenchError as error:
        assert 3 < len(str(error)) < 20_000
        TOTAL[f"{what} refused"] += 1
        return None
    finally:
        assert time.process_time() - before < SECONDS
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MEBIBYTES * 1024


@st.composite
def nearly(draw: st.DrawFn, right: dict[str, list[Any]]) -> dict[str, Any]:
    """Right arguments, of each one of those listed, but for none, one or two of them."""
    chosen = {name: draw(st.sampled_from(values)) for name, values in right.items()}
    wrong = draw(st.lists(st.sampled_from([*sorted(right), "another"]), max_size=2, unique=True))
    return chosen | {name: draw(hostile) for name in wrong}


def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bits turned, pieces cut out, filled with zeros or put elsewhere; nothing; all of it."""
    data = bytearray(content)
    for _ in range(draw(st.sampled_from([0, 1, 1, 2, 3]))):
        at, size = draw(st.integers(0, max(0, len(data) - 1))), draw(st.sampled_from([1, 2, 8, 100, 4096]))
        match draw(st.sampled_from(["turn", "cut", "zero", "end", "double", "text"])):
            case "turn" if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[at : at + size]
            case "zero":
                data[at : at + size] = bytes(len(data[at : at + size]))
            case "end":
                del data[at:]
            case "double":
                data[at:at] = data[at : at + size]
            case _:
                data[at : at + size] = draw(st.binary(max_size=size))
    return bytes(data)


NET = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
with torch.random.fork_rng():
    torch.manual_seed(0)
    nn.init.normal_(layer(NET, 1).weight)
    X = torch.rand(4, 3, 2, 2)
Y = NET(X).argmax(1)
GOOD: dict[str, list[Any]] = {
    "model": [NET],
    "x": [X, X.double(), X.half(), X.mT.contiguous().mT, X.clone().requires_grad_()],
    "y": [Y],
    "attack": ["pgd", "apgd", "square"],
    "threat": ["linf:0.1", "l2:0.2"],
    "seed": [0, 7],
    "steps": [1, 2],
    "budget": [None, 5],
    "targets": [None, None, "random", (Y + 1) % 3],
    "precision": ["float32"],
    "count": ["all", "last"],
    "eot": [1, 2],
    "draws": [1, 3],
    "batch_size": [None, 1, 3],
    "adaptive": [True],
    "attacker": [None, (1 - X, Y)],
    "restarts": [1],
}


@cases("evaluate", 300, given_=nearly(GOOD))
def test_evaluate(given_: dict[str, Any]) -> None:
    x, y = given_.get("x"), given_.get("y")
    verdict = outcome("evaluate", lambda: rbl.evaluate(**given_))
    if verdict is None:
        return
    assert isinstance(x, Tensor) and isinstance(y, Tensor) and isinstance(given_["model"], nn.Module)
    seen = verdict.x_adv.float()
    inside = rbl.ThreatModel.parse(given_["threat"]).contains(seen, x.detach().float())
    with torch.no_grad():
        clean, reached = (given_["model"].float()(each).argmax(1) for each in (x.detach().float(), seen))
    NET.float()
    broken = verdict.clean & ~verdict.robust
    aim = given_["targets"]
    goal = y != reached if aim is None or isinstance(aim, str) else reached == torch.as_tensor(aim)
    assert seen.shape == x.shape and seen.isfinite().all() and (seen >= 0).all() and (seen <= 1).all()
    assert torch.equal(verdict.clean, clean == y) and (inside & goal)[broken].all()
    assert given_["budget"] is None or verdict.forwards.max() <= given_["budget"]


WHOLE = open_data("mnist", source="bundled")
DATA: dict[str, list[Any]] = {
    "name": ["mnist"],
    "n": [None, 1, 5],
    "split": ["test"],
    "source": ["bundled"],
    "sample": [None, "stratified"],
    "ids": [None, "10:30", [5, 3], range(4), slice(2, 9), np.array([1, 2])],
    "seed": [0, 3],
    "device": ["cpu"],
}


@cases("load_data", 300, given_=nearly(DATA))
def test_load_data(given_: dict[str, Any]) -> None:
    if given_["source"] is None:  # the whole set, which may have to be fetched
        given_["source"] = "bundled"
    found = outcome("load_data", lambda: rbl.load_data(**given_))
    if found is not None:
        x, y = found
        whole = open_data("mnist", split="test", source="bundled", ids=given_["ids"])
        known = {image.numpy().tobytes(): int(label) for image, label in zip(whole[:], whole.labels, strict=True)}
        assert all(known[image.numpy().tobytes()] == int(label) for image, label in zip(x, y, strict=True))
        assert len(x) == (given_["n"] or len(whole)) and x.dtype is torch.float32 and y.dtype is torch.int64


MODELS: dict[str, list[Any]] = {
    "spec": ["zoo:mnist/none", "mnist_small", "zoo:mnist/nnoe", "test_fuzz:NET", "test_fuzz:X", "nowhere:net"],
    "weights": [None, None, Path("nowhere.safetensors"), Path(__file__)],
    "allow_pickle": [False, True],
    "device": ["cpu"],
}


@cases("load_model", 150, given_=nearly(MODELS))
def test_load_model(given_: dict[str, Any]) -> None:
    model = outcome("load_model", lambda: rbl.load_model(**given_))
    if model is not None:
        assert isinstance(model, nn.Module) and not model.training
        assert given_["spec"] in ("zoo:mnist/none", "test_fuzz:NET") and given_["weights"] is None


CERTIFY: dict[str, list[Any]] = {
    "model": [NET],
    "x": [X, X.double(), X.half()],
    "y": [Y],
    "sigma": [0.25, "1/4", 1],
    "n0": [1, 10],
    "n": [20, 50],
    "alpha": [0.001, 0.1],
    "batch": [1, 1000],
}


@cases("certify", 200, given_=nearly(CERTIFY))
def test_certify(given_: dict[str, Any]) -> None:
    model = given_["model"].double() if isinstance(given_.get("model"), nn.Module) else given_.get("model")
    if isinstance(given_.get("x"), Tensor) and given_["x"].dtype is not torch.float64 and isinstance(model, nn.Module):
        model.float()
    radii = outcome("certify", lambda: certify(**given_))
    NET.float()
    if radii is not None:
        sigma, n, alpha = parse_number(given_["sigma"]), given_["n"], given_["alpha"]
        most = sigma * float(torch.special.ndtri(torch.tensor(alpha ** (1 / n), dtype=torch.float64)))
        assert radii.shape == Y.shape and (radii.isnan() | ((radii > 0) & (radii <= most * (1 + 1e-9)))).all()


GRID: dict[str, list[Any]] = {
    "data": ["mnist", ["mnist"]],
    "source": ["bundled"],
    "n": [4],
    "models": ["zoo:mnist/none", ["zoo:mnist/none"]],
    "defenses": ["none", ["none", "jpeg"], [{"jpeg": {"quality": 50}}], [["jpeg", "none"]]],
    "attacks": ["fgsm", ["fgsm", {"pgd": {"steps": 2, "threat": "l2:1"}}], {"pgd": {"steps": 3}}],
    "threats": ["linf:0.1", ["linf:8/255", "l2:0.5"]],
    "seeds": [0, [0, 1]],
    "count": ["all", ["all", "last"]],
    "adaptive": [True, [True, False]],
    "precision": ["float32"],
    "budget": [None, 9],
    "eot": [2],
    "targets": [None, "random"],
    "attack_under": [None, "fog:3"],
    "baseline": [None, "none"],
    "severities": [3],
    "batch_size": [None, 8],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def builder() -> ModelBuilder:
    return ModelBuilder(torch.device("cpu"), "bundled")


def sound(found: list[Cell], config: Any) -> None:
    assert found
    for cell in found:
        cell.judge(config)
        assert str(cell) and len(Task("fuzz", cell, config, WHOLE, "w").key) == 24


def plain(value: Any) -> Any:
    """value as a YAML file can say it; a text where it cannot."""
    try:
        return yaml.safe_load(yaml.safe_dump(value))
    except (yaml.YAMLError, ValueError, OverflowError):
        return str(value)


@cases("grids, Python", 150, values=nearly(GRID))
def test_grids_from_python(values: dict[str, Any], folder: Path, builder: ModelBuilder) -> None:
    (folder / "plain.yaml").write_text("data: mnist\nmodels: zoo:mnist/none\nattacks: fgsm\nthreats: linf:0.1\n")

    def ask() -> tuple[list[Cell], Any]:
        config = read_config(str(folder / "plain.yaml"), values)
        return resolve(config, builder), config

    if (found := outcome("grids, Python", ask)) is not None:
        sound(*found)


@cases("grids, YAML", 150, values=nearly(GRID), data=st.data())
def test_grid_files(values: dict[str, Any], data: st.DataObject, folder: Path, builder: ModelBuilder) -> None:
    text = yaml.safe_dump({name: plain(value) for name, value in values.items()}).encode()
    (folder / "mangled.yaml").write_bytes(data.draw(st.composite(damaged)(text)) if data.draw(st.booleans()) else text)

    def ask() -> tuple[list[Cell], Any]:
        config = read_config(str(folder / "mangled.yaml"), {})
        return resolve(config, builder), config

    if (found := outcome("grids, YAML", ask)) is not None:
        sound(*found)


@pytest.fixture(scope="module")
def whole(folder: Path) -> Store:
    """Two rows with their arrays."""
    return stored(folder / "whole", a_row([True, False, True, True]), a_row([True] * 4, attack="fgsm"))


@cases("rows", 250, data=st.data())
def test_rows(data: st.DataObject, folder: Path, whole: Store) -> None:
    row, bits = a_row([True, False, True, True])
    place = folder / "mangled" / "rows"
    place.mkdir(parents=True, exist_ok=True)
    worst = data.draw(st.sampled_from([".json", ".npz"]))
    for ending in (".json", ".npz"):
        content = (whole.folder / "rows" / f"{row['key']}{ending}").read_bytes()
        changed = data.draw(st.composite(damaged)(content)) if ending == worst else content
        (place / f"{row['key']}{ending}").write_bytes(changed)

    def ask() -> tuple[Any, Any]:
        store = Store(place.parent)
        if (found := store.read(row["key"])) is None:
            raise StoreError("counts as missing")
        return found, store.arrays(found["key"])

    if (found := outcome("rows", ask)) is not None:
        assert found[0] == whole.read(row["key"]) and np.array_equal(found[1]["robust"], bits)


@pytest.fixture(scope="module")
def packed(whole: Store, folder: Path) -> bytes:
    shutil.copytree(whole.folder, folder / "to_pack")
    pack(folder / "to_pack")
    return (folder / "to_pack" / NAME).read_bytes()


@cases("archives", 100, data=st.data())
def test_archives(data: st.DataObject, folder: Path, whole: Store, packed: bytes) -> None:
    """Of a damaged archive every row is read as it was, or not at all."""
    path = folder / "archive" / NAME
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data.draw(st.composite(damaged)(packed)))

    def ask() -> list[Any]:
        rows = Store(path.parent).rows()
        if len(rows) < 2:
            raise StoreError("some count as missing")
        return rows

    assert outcome("archives", ask) in (None, whole.rows())


@cases("arrays", 100, data=st.data())
def test_arrays(data: st.DataObject, folder: Path) -> None:
    images = np.arange(4 * 3 * 4 * 4, dtype=np.uint8).reshape(4, 4, 4, 3)
    right: dict[str, Any] = {"x_test": images, "y_test": np.arange(4) % 2}
    wrong = data.draw(st.dictionaries(st.sampled_from(["x_test", "y_test", "x"]), hostile, max_size=2))
    file = BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in (right | wrong).items()}
    np.savez(file, **arrays)
    content = file.getvalue()
    (folder / "own.npz").write_bytes(data.draw(st.composite(damaged)(content)))
    x = outcome("arrays", lambda: open_data(f"arrays:{folder / 'own.npz'}")[:])
    if x is not None and not wrong:
        assert torch.equal((255 * x).round().byte(), torch.from_numpy(images).permute(0, 3, 1, 2))


@cases("folders", 100, data=st.data())
def test_folders(data: st.DataObject, folder: Path) -> None:
    place = Path(tempfile.mkdtemp(dir=folder))
    for name in ("cat", "dog"):
        (place / "test" / name).mkdir(parents=True)
        file = BytesIO()
        Image.fromarray(np.full((4, 4, 3), 10 * len(name) + (name == "dog"), np.uint8)).save(file, "png")
        content = data.draw(st.composite(damaged)(file.getvalue())) if name == "dog" else file.getvalue()
        (place / "test" / name / "a.png").write_bytes(content)
    found = outcome("folders", lambda: open_data(f"folder:{place}")[:])
    assert found is None or (found[0] * 255).round().unique().tolist() == [30]


@cases("checkpoints", 200, data=st.data())
def test_checkpoints(data: st.DataObject, folder: Path) -> None:
    net = build_model("fast_cnn", seed=1)
    state = {name: tensor for name, tensor in net.state_dict().items()}
    file = BytesIO()
    if pickled := data.draw(st.booleans()):
        torch.save(state, file)
    content = file.getvalue() if pickled else safetensors.torch.save(state)
    short = content[:200_000] if data.draw(st.integers(0, 9)) == 0 else content
    (folder / "net.pt").write_bytes(data.draw(st.composite(damaged)(short)))

    def ask() -> dict[str, Tensor]:
        found = load(folder / "net.pt", allow_pickle=True)[0]
        restore(build_model("fast_cnn"), found, "net.pt")
        return found

    found = outcome("checkpoints", ask)
    assert found is None or {name: value.shape for name, value in found.items()} == {
        name: value.shape for name, value in state.items()
    }
