"""Rows name what a model of a user's own does: an edited forward is another model, an edited comment is not."""

from __future__ import annotations

import importlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from robustbench_local.core.errors import ModelError
from robustbench_local.core.progress import Progress
from robustbench_local.defenses.squeeze_detector import SqueezeDetector
from robustbench_local.grids.run import run_grid
from robustbench_local.models.behaviour import behaviour
from robustbench_local.models.load import load_model, open_model
from robustbench_local.training.fitted import Fitter
from tests.helpers.tiny_training import Lines

NET = '''
import functools, math, torch
from torch import nn
import {helper}
from {helper} import shift as moved

SCALE = 3.0
KINDS = {{"a", "b", "c", "sieve", "order"}}

def outer(factor):
    def inner(x):
        return factor * x
    return inner

class Base(nn.Module):
    top = 1.5
    def finish(self, x):
        return x + self.top

class Net(Base):
    """Says."""
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.25)
        self.norm = nn.GroupNorm(1, 1, eps=1e-5)
        self.power = 2
        self.table = [torch.tensor([1.0, 2.0]), {{"x": (1, 2)}}]
        self.register_buffer("hidden", torch.tensor([0.5]), persistent=False)
        self.inner = outer(4.0)
        self.part = functools.partial(math.pow, 2.0)
        self.register_forward_hook(lambda module, given, out: 1.0 * out)
    @property
    def half(self):
        return 0.5
    def forward(self, x):
        # a comment
        import {late}
        low = self.inner(x).flatten(1).mean(1) * self.half * SCALE ** self.power
        low = moved(low) + {helper}.lift(low) + {late}.last() + (1.0 if "a" in KINDS else 0.0)
        return torch.stack([self.finish(low), 0.25 - low, 0.125 - low], 1)

def make():
    return Net().eval()
'''
HELPER = """
OFFSET = 0.75
def shift(x):
    return x - OFFSET
def lift(x):
    return twice(x) * 1.25
def twice(x):
    return x + x
"""
LATE = "def last():\n    return 0.0625\n"
_numbers = itertools.count()


class Files:
    """A module of a user's own, the helper it imports, and one that only forward imports."""

    def __init__(self, folder: Path) -> None:
        number = next(_numbers)
        self.folder, self.net, self.helper, self.late = folder, f"net_{number}", f"help_{number}", f"late_{number}"
        self.texts = {self.net: NET.format(helper=self.helper, late=self.late), self.helper: HELPER, self.late: LATE}
        self.write()

    def write(self) -> None:
        for name, text in self.texts.items():
            (self.folder / f"{name}.py").write_text(text)
        importlib.invalidate_caches()

    def edit(self, of: str, old: str, new: str) -> None:
        name = getattr(self, of)
        assert old in self.texts[name]
        self.texts[name] = self.texts[name].replace(old, new)
        self.write()

    def digest(self) -> str:
        """As a new process would find it."""
        for name in self.texts:
            sys.modules.pop(name, None)
        for cached in (self.folder / "__pycache__").glob("*"):
            cached.unlink()
        found = open_model(f"{self.net}:make")[1]
        assert found is not None
        return found


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return Files(tmp_path)


OTHER = "net = Net().eval()\n    net.forward = lambda x: x.flatten(1)[:, :3]\n    return net"
EDITS = [
    ("net", "0.25 - low", "0.26 - low"),
    ("net", "torch.stack", "torch.column_stack"),
    ("net", "SCALE = 3.0", "SCALE = 3.5"),
    ("net", "return factor * x", "return factor + x"),
    ("net", "outer(4.0)", "outer(5.0)"),
    ("net", "top = 1.5", "top = 1.25"),
    ("net", "x + self.top", "x - self.top"),
    ("net", "Dropout(0.25)", "Dropout(0.5)"),
    ("net", "eps=1e-5", "eps=1e-4"),
    ("net", "self.power = 2", "self.power = 3"),
    ("net", "[1.0, 2.0]", "[1.0, 3.0]"),
    ("net", '"x": (1, 2)', '"x": (1, 3)'),
    ("net", "tensor([0.5])", "tensor([0.6])"),
    ("net", "math.pow, 2.0", "math.pow, 3.0"),
    ("net", "math.pow, 2.0", "math.log, 2.0"),
    ("net", "1.0 * out", "2.0 * out"),
    ("net", "return 0.5", "return 0.25"),
    ("net", '"sieve"', '"sieves"'),
    ("net", "class Net(Base)", "class Net(Base, object)"),
    ("net", "return Net().eval()", OTHER),
    ("helper", "OFFSET = 0.75", "OFFSET = 0.5"),
    ("helper", "x - OFFSET", "x + OFFSET"),
    ("helper", "twice(x) * 1.25", "twice(x) * 1.5"),
    ("helper", "return x + x", "return 2.5 * x"),
    ("late", "0.0625", "0.125"),
]


@pytest.mark.parametrize(("of", "old", "new"), EDITS)
def test_another_behaviour_has_another_digest(files: Files, of: str, old: str, new: str) -> None:
    before = files.digest()
    files.edit(of, old, new)
    assert files.digest() != before


def test_what_changes_no_behaviour_changes_no_digest(files: Files) -> None:
    before = files.digest()
    files.edit("net", "# a comment", "# another comment\n\n        # and a longer one\n")
    files.edit("net", "import functools, math, torch", "import functools\nimport math\n\nimport torch")
    (files.folder / "beside.py").write_text("def unrelated():\n    return 1\n")
    assert files.digest() == before
    (files.folder / "beside.py").write_text("def unrelated():\n    return 2\n")
    assert files.digest() == before


def test_all_processes_agree(files: Files) -> None:
    """Whatever seeds their hashes, wherever their objects lie, compiled now or before."""
    spec = f"{files.net}:make"
    code = f"from robustbench_local.models.load import open_model; print(open_model({spec!r})[1])"
    found = set()
    for seed in ("1", "2"):
        known = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=known, check=True)
        found.add(done.stdout)
    assert found == {files.digest() + "\n"}


def test_asking_a_model_and_moving_its_weights_changes_nothing(files: Files) -> None:
    first = files.digest()
    model = load_model(f"{files.net}:make")
    sys.modules.pop(files.late, None)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)  # the weights' digest says that
    assert behaviour(model.train(), getattr(sys.modules[files.net], "make")) == first  # noqa: B009


def test_a_declared_identity_is_taken_instead(files: Files) -> None:
    digests = []
    for said in ("server 1", "server 2", "server 1"):
        files.texts[files.net] = NET.format(helper=files.helper, late=files.late) + f"make.rbl_identity = {said!r}\n"
        files.write()
        digests.append(files.digest())
    files.edit("net", "SCALE = 3.0", "SCALE = 4.0")
    digests.append(files.digest())
    assert digests[0] != digests[1] and digests[0] == digests[2] == digests[3]

    class Remote(nn.Module):
        rbl_identity: object = "server 1"

    assert behaviour(Remote()) == digests[0]
    for nothing in ("", 3, nn.Identity()):
        Remote.rbl_identity = nothing
        with pytest.raises(ModelError, match=r"rbl_identity is .*: it must be a text"):
            behaviour(Remote())


def test_models_without_code_of_a_users_own() -> None:
    """A house network is what its name says; torch's modules count by their settings."""
    assert open_model("zoo:mnist/none")[1] is None
    plain = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    assert behaviour(plain) == behaviour(nn.Sequential(nn.Linear(3, 3), nn.ReLU()))
    assert behaviour(plain) != behaviour(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.ReLU()))
    assert behaviour(nn.LeakyReLU(0.1)) != behaviour(nn.LeakyReLU(0.2))
    assert behaviour(nn.Sequential(nn.ReLU(), nn.Tanh())) != behaviour(nn.Sequential(nn.Tanh(), nn.ReLU()))


def loop() -> nn.Module:
    net = nn.Identity()
    net.held = [net, {"itself": net}]  # type: ignore[assignment]
    return net


def many() -> nn.Module:
    net = nn.Identity()
    net._seen = torch.rand(3) * 0 + torch.arange(3)
    net.odd = object(), 1 + 2j, range(3), slice(1, 2), torch.float16, torch.device("cpu"), Path("a"), iter([]), ...  # type: ignore[assignment]
    net.bound = torch.ones(2).add  # type: ignore[assignment]
    return net


def traced() -> nn.Module:
    return torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))


def scripted() -> nn.Module:
    module: nn.Module = torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.25)))
    return module


@pytest.mark.parametrize("make", [loop, many, traced, scripted])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_odd_models_have_one_as_well(make: Callable[[], nn.Module]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = behaviour(make())
        torch.manual_seed(0)
        assert behaviour(make()) == first


def test_a_stack_that_never_ends_is_an_error() -> None:
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    net = nn.Identity()
    net.deep = deep  # type: ignore[assignment]
    with pytest.raises(ModelError, match=r"nested too deeply .* give it a rbl_identity"):
        behaviour(net)


WRAPPED = """
from torch import nn
from robustbench_local import load_model

class Wrapped(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net
    def forward(self, x):
        return self.net(1.0 * x)  # a comment

def make():
    return Wrapped(load_model("zoo:mnist/none"))
"""
GRID = """
data: mnist
source: bundled
n: 8
models: "{name}:make"
attacks: noise
threats: linf:0.1
"""


def test_an_edited_forward_has_rows_of_its_own(files: Files, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(GRID.format(name=files.net))
    files.texts = {files.net: WRAPPED}
    files.write()

    def key() -> tuple[str, list[str]]:
        files.digest()
        progress = Lines()
        (row,) = run_grid(str(tmp_path / "own.yaml"), progress=progress, results=str(tmp_path / "results"))
        assert row["status"] == "ok", row["error"]
        assert len(row["definition"]["behaviour_digest"]) == 64
        return row["key"], [line for line in progress.lines if "done before" in line]

    first, again = key(), key()
    assert again[0] == first[0] and not first[1] and again[1]
    files.edit("net", "# a comment", "# another")
    assert key()[0] == first[0]
    files.edit("net", "1.0 * x", "0.9 * x")
    other = key()
    assert other[0] != first[0] and not other[1]
    house = run_grid(
        "quickstart",
        data="mnist",
        models="zoo:mnist/none",
        defenses="none",
        attacks="noise",
        n=4,
        threats="linf:0.1",
        results=str(tmp_path / "results"),
    )
    assert "behaviour_digest" not in house[0]["definition"]


def test_what_is_fitted_around_it_is_its_own() -> None:
    parts = [("squeeze_detector", SqueezeDetector())]
    net, here = nn.Linear(1, 1), torch.device("cpu")
    kept = [Fitter("mnist", "bundled", here, Progress(), own).files(parts, net) for own in (None, "a", "a", "b")]
    assert kept[1] == kept[2] and len({str(files) for files in kept}) == 3
