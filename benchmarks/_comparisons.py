"""What is compared: our attacks and peers' with the same settings, on which model, on how many images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks._kept import Row, keep, kept
from benchmarks._peers import peer, release
from benchmarks._timing import pairs, surroundings
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.data.load import load_data
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.models.load import load_model
from robustbench_local.storage.checkpoints import weights_digest

PART = 100  # images of a long run that are kept together


class Subject(NamedTuple):
    """A model, its images, and the size of a ball in L∞ and one in L2 in which some of them are robust."""

    name: str
    data: str
    linf: float
    l2: float
    weights: Path | None = None


ZOO = (
    Subject("mnist/none", "mnist", 0.1, 1.5),
    Subject("mnist/adversarial_training", "mnist", 0.3, 2.0),
    Subject("cifar10/none", "cifar10", 1 / 255, 0.1),
    Subject("cifar10/adversarial_training", "cifar10", 8 / 255, 0.5),
)
UNDEFENDED = (
    Subject("mnist/none", "mnist", 0.3, 2.0),
    Subject("cifar10/none", "cifar10", 8 / 255, 0.5),
)  # nearly no image is robust


def others(weights: Sequence[str]) -> list[Subject]:
    """MNIST networks trained elsewhere, each text ARCHITECTURE=PATH."""
    named = [(architecture, Path(path)) for architecture, _, path in (text.partition("=") for text in weights)]
    return [Subject(f"{architecture}={path.name}", "mnist", 0.3, 2.0, path) for architecture, path in named]


class Entry(NamedTuple):
    """One attack of ours beside peers' of the same settings, on so many images of MNIST and of CIFAR-10."""

    attack: str
    norm: Norm
    ours: dict[str, Any]
    theirs: dict[str, dict[str, Any]]
    images: tuple[int, int]
    minimises: bool = False  # it seeks the smallest perturbation; whether that is in the ball is what counts
    targeted: bool = False  # towards the next class
    eps: float | None = None  # instead of the subject's
    scale: float = 1.0  # of the subject's


def entries(eps: float) -> list[Entry]:
    """From cheap to dear; eps is the subject's in L∞."""
    step = 2.5 * eps / 40
    rate = 0.1 if eps >= 0.1 else 0.01  # of Adam in CW: with 0.1 torchattacks gives up on CIFAR-10 after six steps
    return [
        Entry(
            "fgsm",
            Norm.LINF,
            {},
            {"torchattacks:FGSM": {}, "foolbox:LinfFastGradientAttack": {}, "art:FastGradientMethod": {}},
            (100, 100),
        ),
        Entry(
            "bim",
            Norm.LINF,
            {"steps": 10, "step_size": eps / 10},
            {
                "torchattacks:BIM": {"steps": 10, "alpha": eps / 10},
                "foolbox:LinfBasicIterativeAttack": {"steps": 10, "abs_stepsize": eps / 10},
                "art:BasicIterativeMethod": {"max_iter": 10, "eps_step": eps / 10},
            },
            (100, 100),
        ),
        Entry(
            "mim",
            Norm.LINF,
            {"steps": 10, "step_size": eps / 10},
            {
                "torchattacks:MIFGSM": {"steps": 10, "alpha": eps / 10},
                "foolbox:MIFGSM": {"steps": 10, "abs_stepsize": eps / 10},
                "art:MomentumIterativeMethod": {"max_iter": 10, "eps_step": eps / 10},
            },
            (100, 100),
        ),
        Entry(
            "pgd",
            Norm.LINF,
            {"steps": 40, "step_size": step},
            {
                "torchattacks:PGD": {"steps": 40, "alpha": step},
                "foolbox:LinfPGD": {"steps": 40, "abs_stepsize": step},
                "art:ProjectedGradientDescentPyTorch": {"max_iter": 40, "eps_step": step, "num_random_init": 1},
            },
            (300, 100),
        ),
        Entry(
            "apgd",
            Norm.LINF,
            {"steps": 50, "loss": "ce"},
            {
                "torchattacks:APGD": {"steps": 50, "loss": "ce"},
                "art:AutoProjectedGradientDescent": {
                    "max_iter": 50,
                    "loss_type": "cross_entropy",
                    "nb_random_init": 1,
                    "eps_step": 2 * eps,
                },
            },
            (300, 100),
        ),
        Entry(
            "apgd",
            Norm.LINF,
            {"steps": 50, "loss": "dlr"},
            {
                "torchattacks:APGD": {"steps": 50, "loss": "dlr"},
                "art:AutoProjectedGradientDescent": {
                    "max_iter": 50,
                    "loss_type": "difference_logits_ratio",
                    "nb_random_init": 1,
                    "eps_step": 2 * eps,
                },
            },
            (300, 100),
        ),
        Entry(
            "cw",
            Norm.L2,
            {"steps": 50, "searches": 1, "constant": 5.0, "step_size": rate},
            {"torchattacks:CW": {"steps": 50, "c": 1, "lr": rate}},
            (300, 100),
            minimises=True,
        ),
        Entry("fab", Norm.LINF, {"steps": 20}, {"torchattacks:FAB": {"steps": 20}}, (100, 100), minimises=True),
        Entry(
            "deepfool",
            Norm.L2,
            {"steps": 50},
            {
                "torchattacks:DeepFool": {"steps": 50},
                "foolbox:L2DeepFoolAttack": {"steps": 50},
                "art:DeepFool": {"max_iter": 50, "epsilon": 0.02},
            },
            (100, 100),
            minimises=True,
        ),
        Entry("ddn", Norm.L2, {"steps": 50}, {"foolbox:DDNAttack": {"steps": 50}}, (100, 50), minimises=True),
        Entry("fmn", Norm.LINF, {"steps": 50}, {"foolbox:LInfFMNAttack": {"steps": 50}}, (100, 50), minimises=True),
        Entry(
            "ead",
            Norm.L1,
            {"steps": 50, "searches": 4, "step_size": 0.05, "beta": 0.01, "rule": "l1"},
            {
                "foolbox:EADAttack": {
                    "steps": 50,
                    "binary_search_steps": 4,
                    "initial_stepsize": 0.05,
                    "regularization": 0.01,
                    "decision_rule": "L1",
                }
            },
            (100, 0),
            minimises=True,
            eps=15,
        ),
        Entry(
            "hopskipjump",
            Norm.L2,
            {"steps": 8},
            {"foolbox:HopSkipJumpAttack": {"steps": 8}},
            (100, 10),
            minimises=True,
            scale=2,
        ),
        Entry(
            "hopskipjump",
            Norm.L2,
            {"steps": 4},
            {"art:HopSkipJump": {"max_iter": 4}},
            (100, 10),
            minimises=True,
            scale=2,
        ),
        Entry(
            "boundary",
            Norm.L2,
            {"steps": 500},
            {"foolbox:BoundaryAttack": {"steps": 500}},
            (100, 10),
            minimises=True,
            scale=2,
        ),
        Entry(
            "square",
            Norm.LINF,
            {"steps": 500},
            {"torchattacks:Square": {"n_queries": 500}, "art:SquareAttack": {"max_iter": 500}},
            (100, 40),
        ),
        # where no pair is left the paper ends; torchattacks goes on with a corner, ART asks for no pair at all
        Entry(
            "jsma",
            Norm.L0,
            {"theta": 1.0, "gamma": 0.1},
            {"torchattacks:JSMA": {"theta": 1.0, "gamma": 0.1}},
            (100, 0),
            minimises=True,
            targeted=True,
            eps=784,
        ),
        Entry(
            "jsma",
            Norm.L0,
            {"theta": 1.0, "gamma": 0.1, "saliency": "slope"},
            {"art:SaliencyMapMethod": {"theta": 1.0, "gamma": 0.1}},
            (100, 0),
            minimises=True,
            targeted=True,
            eps=784,
        ),
        Entry(
            "spsa",
            Norm.LINF,
            {"steps": 20, "samples": 128, "learning_rate": eps / 8},
            {
                "torchattacks:SPSA": {"nb_iter": 20, "nb_sample": 64, "lr": eps / 8}  # pairs
            },
            (100, 20),
        ),
        Entry(
            "one_pixel",
            Norm.L0,
            {"preset": "best1bin", "population": 90, "generations": 20},
            {"torchattacks:OnePixel": {"popsize": 90, "steps": 20, "inf_batch": 1024}},
            (100, 20),
            eps=1,
        ),
        Entry(
            "one_pixel",
            Norm.L0,
            {"preset": "best1bin", "population": 399, "generations": 10},
            {
                "art:PixelAttack": {"max_iter": 10}  # always 400 members, rounded down to a multiple of the genes
            },
            (100, 20),
            eps=1,
        ),
        Entry(
            "cw",
            Norm.L2,
            {"steps": 50, "searches": 4, "step_size": rate},
            {"foolbox:L2CarliniWagnerAttack": {"steps": 50, "binary_search_steps": 4, "stepsize": rate}},
            (300, 100),
            minimises=True,
        ),
        Entry(
            "cw",
            Norm.L2,
            {"steps": 50, "searches": 4, "step_size": rate},
            {  # it tries many step sizes besides
                "art:CarliniL2Method": {
                    "max_iter": 50,
                    "binary_search_steps": 4,
                    "initial_const": 1e-3,
                    "learning_rate": rate,
                }
            },
            (100, 10),
            minimises=True,
        ),
        # of equal passes: no peer has either
        Entry("sparse_autoattack", Norm.L0, {}, {"robustbench_local:sparse_rs": {"steps": 11_200}}, (50, 0), eps=5),
    ]


AUTOATTACK = Entry("autoattack", Norm.LINF, {}, {"pyautoattack:AutoAttack": {}}, (0, 0))


@dataclass(frozen=True)
class Comparison:
    subject: Subject
    entry: Entry
    theirs: str
    images: int

    @property
    def name(self) -> str:
        return f"{self.entry.attack} {self.subject.name} {self.theirs}"

    @property
    def threat(self) -> ThreatModel:
        own = self.subject.linf if self.entry.norm is Norm.LINF else self.subject.l2
        return ThreatModel(self.entry.norm, self.entry.eps or self.entry.scale * own)

    @property
    def what(self) -> Row:
        """All that decides the figures, but luck and machine."""
        return {
            "attack": self.entry.attack,
            "version": find_attack(self.entry.attack, self.entry.ours).version_in(self.entry.norm),
            "settings": self.entry.ours,
            "peer": self.theirs,
            "release": release(self.theirs.partition(":")[0]),
            "peer_settings": self.entry.theirs[self.theirs],
            "subject": self.subject.name,
            "weights": weights_digest(model_of(self.subject, "cpu")),
            "threat": str(self.threat),
            "images": self.images,
        }

    def run(self, at_most: int, seconds: float, device: str, parts: Path) -> Row:
        """Pairs of runs, until there are so many or so many seconds are spent; the first image warms both up.

        AutoAttack on many images is one pair, kept in the file of parts as it grows; more images go on from there.
        """
        if self.entry.attack == AUTOATTACK.attack and self.images > PART:
            return self._run_in_parts(device, parts)
        model = model_of(self.subject, device)
        x, y = images_of(self.subject.data, self.images, device)
        aim = (y + 1) % 10 if self.entry.targeted else y
        self._ours(model, x[:1], y[:1], aim[:1], 0)
        self.after_theirs(model, x[:1], aim[:1], 0)
        seeds = count(), count()
        robust: tuple[list[Tensor], list[Tensor]] = [], []
        spent: tuple[list[float], list[float]] = [], []
        for both in pairs(
            lambda: self._ours(model, x, y, aim, next(seeds[0])),
            lambda: self.after_theirs(model, x, aim, next(seeds[1])),
            torch.device(device),
        ):
            for (found, taken), bits, times in zip(both, robust, spent, strict=True):
                bits.append(found)
                times.append(taken)
            if len(spent[0]) >= at_most or sum(spent[0]) + sum(spent[1]) >= seconds:
                break
        return {"what": self.what} | figures(*map(torch.stack, robust)) | {"seconds": spent} | surroundings(x.device)

    def _run_in_parts(self, device: str, file: Path) -> Row:
        where = surroundings(torch.device(device))
        what = {name: value for name, value in self.what.items() if name != "images"} | where
        done = {row["first"]: row for row in kept(file) if row["what"] == what}
        for first in range(0, self.images, PART):
            if first not in done:
                done[first] = {"what": what, "first": first} | self._part(first, device)
                keep(file, done[first])
        rows = [done[first] for first in sorted(done)]
        robust = [torch.cat([torch.tensor(row["robust"][side]) for row in rows])[None].bool() for side in (0, 1)]
        spent = [[sum(row["seconds"][side] for row in rows)] for side in (0, 1)]
        return {"what": self.what} | figures(*robust) | {"seconds": spent} | where

    def _part(self, first: int, device: str) -> Row:
        """Which images are robust, (2, n) of 0 and 1, and the seconds of both, on the images from the first on."""
        model = model_of(self.subject, device)
        x, y = (part[first : first + PART] for part in images_of(self.subject.data, self.images, device))
        ours, theirs = next(
            pairs(
                lambda: self._ours(model, x, y, y, first),
                lambda: self.after_theirs(model, x, y, first),
                torch.device(device),
            )
        )
        return {"robust": [side[0].int().tolist() for side in (ours, theirs)], "seconds": [ours[1], theirs[1]]}

    def _ours(self, model: nn.Module, x: Tensor, y: Tensor, aim: Tensor, seed: int) -> Tensor:
        settings = self.entry.ours | ({"targets": aim} if self.entry.targeted else {})
        return evaluate(model, x, y, self.entry.attack, self.threat, seed, **settings).robust

    def after_theirs(self, model: nn.Module, x: Tensor, aim: Tensor, seed: int) -> Tensor:
        """Which images are robust against the peer's attack, (n,) bool."""
        settings, threat = self.entry.theirs[self.theirs], self.threat
        craft = peer(self.theirs, settings, model, threat, targeted=self.entry.targeted, seed=seed)
        found = craft(x.clone(), aim.clone()).detach()
        if not self.entry.minimises:
            found = threat.project(found, x)
        return self._missed(model, x, aim) & (self._missed(model, found, aim) | ~threat.contains(found, x))

    def _missed(self, model: nn.Module, x: Tensor, aim: Tensor) -> Tensor:
        """Which images are still answered as labelled, or not as aimed at."""
        with torch.no_grad():
            answer = torch.cat([model(part).argmax(1) for part in x.split(500)])
        return (answer != aim) if self.entry.targeted else (answer == aim)


def figures(ours: Tensor, theirs: Tensor) -> Row:
    """Of which images are robust, (pairs, N) bool each."""
    apart = ours.double().mean(0) - theirs.double().mean(0)
    return {
        "robust_accuracy": [100 * bits.double().mean().item() for bits in (ours, theirs)],
        "difference": 100 * apart.mean().item(),
        "luck": 100 * apart.square().sum().sqrt().item() / len(apart),
        "more_after_ours": (apart > 0).nonzero()[:, 0].tolist(),
        "more_after_theirs": (apart < 0).nonzero()[:, 0].tolist(),
    }


@cache
def model_of(subject: Subject, device: str) -> nn.Module:
    if subject.weights is None:
        return load_model(f"zoo:{subject.name}", device=device)
    architecture = subject.name.partition("=")[0]
    return load_model(architecture, weights=subject.weights, allow_pickle=True, device=device)


@cache
def images_of(data: str, count: int, device: str) -> tuple[Tensor, Tensor]:
    return load_data(data, n=count, source="bundled" if count <= 1000 else None, device=device)
