"""A package of attacks that end, hang or fill the process that runs them, and models to run them on."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.packages import installed

_CODE = """
import ctypes, os, signal, time
import torch
from torch import nn
from robustbench_local.core.attack import Attack
from robustbench_local.core.access import Access
from robustbench_local.data.load import load_data

def linear(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    return net

def other():
    return linear(1)

def right():
    # right about most images: the nearest mean of a class
    net = linear()
    x, y = load_data("mnist", split="train", source="bundled", n=300)
    x = x.flatten(1)
    with torch.no_grad():
        for digit in range(10):
            mean = x[y == digit].mean(0)
            net[1].weight[digit] = mean
            net[1].bias[digit] = -mean.square().sum() / 2
    return net

class Speechless(Exception):
    def __str__(self):
        raise RuntimeError("no words")

class Rogue(Attack):
    access = Access.GRADIENTS
    def __call__(self, oracle, x, y, threat, draws):
        self.fault()
        return x
    def cost(self, classes, norm=None):
        return 1, 1

class Segfaults(Rogue):
    def fault(self):
        ctypes.string_at(0)

class Killed(Rogue):
    def fault(self):
        os.kill(os.getpid(), signal.SIGKILL)

class Hangs(Rogue):
    def fault(self):
        time.sleep(10**6)

class Exits(Rogue):
    def fault(self):
        ctypes.CDLL(None)._exit(7)

class Leaks(Rogue):
    def fault(self):
        held = []
        while True:
            held.append(torch.ones(2**24))
            time.sleep(0.01)

class Dumb(Rogue):
    def fault(self):
        raise Speechless
"""
NAMES = ("segfaults", "killed", "hangs", "exits", "leaks", "dumb")


def install_rogues(folder: Path) -> None:
    """Into a folder that is on sys.path."""
    (folder / "rogues.py").write_text(_CODE)
    lines = [f"{name} = rogues:{name.capitalize()}" for name in NAMES]
    installed(folder, "rogues", "[robustbench_local.attacks]\n" + "\n".join(lines) + "\n")
