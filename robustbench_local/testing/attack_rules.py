"""What every attack must keep: the rules that `check_attack` holds one to."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.errors import AccessError, ConfigError
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.evaluation.evaluate import Tensors
from robustbench_local.testing.contract import Rule
from robustbench_local.testing.declared import odd_settings, says_nothing
from robustbench_local.testing.random_state import moved, state
from robustbench_local.testing.specimens import COUNT, Jittered, Planted, Stubborn, images, network, planted, reach
from robustbench_local.testing.trials import Trial, run

HAIR = 1e-5  # so near to the boundary that whatever moves an image at all can cross it
SAME = 1e-9  # what float64 leaves of equal images


@dataclass(frozen=True)
class Subject:
    """An attack, and the ball it is tried in."""

    attack: Attack
    threat: ThreatModel

    @cached_property
    def model(self) -> nn.Module:
        return network()

    @cached_property
    def data(self) -> Tensors:
        return images(network())

    @cached_property
    def plain(self) -> Trial:
        """Run once, on all images at once."""
        return run(self.attack, self.model, self.data, self.threat)


def chosen(data: Tensors, rows: Tensor) -> Tensors:
    return Tensors(data.x[rows], data.labels[rows], data.ids[rows])


def no_images(x_adv: object, x: Tensor, threat: ThreatModel, anywhere: bool) -> Iterator[str]:
    """Why these are no adversarial images of x in that ball, in words; anywhere: the ball does not bind."""
    if not isinstance(x_adv, Tensor) or x_adv.shape != x.shape:
        what = tuple(x_adv.shape) if isinstance(x_adv, Tensor) else type(x_adv).__name__
        yield f"it returned {what} for images {tuple(x.shape)}"
    elif x_adv.dtype != x.dtype or x_adv.device != x.device:
        yield f"it returned {x_adv.dtype} on {x_adv.device} for {x.dtype} on {x.device}"
    elif not (threat if not anywhere else ThreatModel(Norm.NONE, 0)).contains(x_adv, x).all():
        far, low, high = float(threat.distance(x_adv, x).max()), float(x_adv.min()), float(x_adv.max())
        yield f"images at a distance of {far:.4g} in {threat}, with values in [{low:.4g}, {high:.4g}]"


def declared(subject: Subject) -> Iterator[str]:
    kind = type(subject.attack)
    yield from says_nothing(kind)
    if not isinstance(kind.access, Access):
        yield f"access is {kind.access!r}, no Access"
    if not kind.norms or not all(isinstance(norm, Norm) for norm in kind.norms):
        yield f"norms is {kind.norms!r}, no set of Norm"


def runs(subject: Subject) -> Iterator[str]:
    yield from no_images(subject.plain.x_adv, subject.data.x, subject.threat, anywhere=True)


def ball(subject: Subject) -> Iterator[str]:
    yield from no_images(subject.plain.x_adv, subject.data.x, subject.threat, subject.attack.minimises)


def point(subject: Subject) -> Iterator[str]:
    if subject.threat.norm is not Norm.NONE and not subject.attack.minimises:
        nowhere = ThreatModel(subject.threat.norm, 0)
        try:
            trial = run(subject.attack, subject.model, subject.data, nowhere)
        except ConfigError:  # there is no room for it, and it says so
            return
        yield from no_images(trial.x_adv, subject.data.x, nowhere, anywhere=False)


def wide(subject: Subject) -> Iterator[str]:
    data = images(network(), torch.float64)
    trial = run(subject.attack, network().double(), data, subject.threat)
    yield from no_images(trial.x_adv, data.x, subject.threat, subject.attack.minimises)


def shapes(subject: Subject) -> Iterator[str]:
    x = torch.rand(3, 1, 7, 9, generator=torch.Generator().manual_seed(1))
    data = Tensors(x, torch.zeros(3, dtype=torch.int64), torch.arange(3))
    trial = run(subject.attack, Stubborn(), data, subject.threat)
    yield from no_images(trial.x_adv, x, subject.threat, subject.attack.minimises)


def company(subject: Subject) -> Iterator[str]:
    data = images(network(), torch.float64)
    shuffled = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))
    ways = {
        "in batches of 7": (torch.arange(COUNT), 7),
        "in another order": (shuffled, None),
        "alone": (shuffled[:3], 1),
    }
    for kind, model in (("", network().double()), (" of a random model", Jittered(network().double()))):
        whole = run(subject.attack, model, data, subject.threat)
        for way, (rows, batch) in ways.items():
            part = run(subject.attack, model, chosen(data, rows), subject.threat, batch=batch)
            off = (part.x_adv - whole.x_adv[rows]).abs().flatten(1).amax(1) > SAME
            if off.any():
                yield f"{int(off.sum())} of {len(rows)} images{kind} differ when they are attacked {way}"


def seeds(subject: Subject) -> Iterator[str]:
    before = state()
    again = run(subject.attack, subject.model, subject.data, subject.threat)
    if not again.x_adv.equal(subject.plain.x_adv):
        yield "two runs of the same seed differ"
    yield from moved(before)


def untouched(subject: Subject) -> Iterator[str]:
    if subject.plain.wrote:
        yield f"it wrote into the {' and the '.join(sorted(subject.plain.wrote))} it was given"
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(subject.attack, model, subject.data, subject.threat)
    wrote = [name for name, value in model.state_dict().items() if not value.equal(before[name])]
    if wrote:
        yield f"it wrote into the model ({', '.join(wrote)})"


def meter(subject: Subject) -> Iterator[str]:
    if subject.plain.beside:
        yield f"it had {subject.plain.beside} answers that are on no meter"


def access(subject: Subject) -> Iterator[str]:
    needed = subject.attack.access
    if needed is Access.NONE:
        return
    less = Access(needed - 1)
    try:
        run(subject.attack, subject.model, subject.data, subject.threat, access=less)
    except AccessError:
        return
    yield f"it declares {needed.name} and got along with {less.name}"


def cost(subject: Subject) -> Iterator[str]:
    """Of images that never fall, on which nobody is done early."""
    x = subject.data.x
    data = Tensors(x, torch.zeros(len(x), dtype=torch.int64), subject.data.ids)
    trial = run(subject.attack, Stubborn(), data, subject.threat)
    stated = subject.attack.cost(4, subject.threat.norm)
    for name, spent, said in zip(("forward", "backward"), (trial.forwards, trial.backwards), stated, strict=True):
        if int(spent.max()) > said:
            yield f"{int(spent.max())} {name} passes on an image that stayed robust, and cost() states {said}"


def budget(subject: Subject) -> Iterator[str]:
    trial = run(subject.attack, subject.model, subject.data, subject.threat, budget=2)
    yield from no_images(trial.x_adv, subject.data.x, subject.threat, subject.attack.minimises)
    if int(trial.forwards.max()) > 2:
        yield f"{int(trial.forwards.max())} forward passes on one image within a budget of 2"


def targets(subject: Subject) -> Iterator[str]:
    if isinstance(subject.attack, Corruption):
        return
    goal = (subject.data.labels + 2) % 4
    try:
        trial = run(subject.attack, subject.model, subject.data, subject.threat, goal=goal)
    except ConfigError:  # it aims at no class, and says so
        return
    yield from no_images(trial.x_adv, subject.data.x, subject.threat, subject.attack.minimises)


def settings(subject: Subject) -> Iterator[str]:
    def use(attack: Attack) -> Iterator[str]:
        few = chosen(subject.data, torch.arange(4))
        trial = run(attack, subject.model, few, subject.threat, budget=20)
        yield from no_images(trial.x_adv, few.x, subject.threat, attack.minimises)

    yield from odd_settings(subject.attack, use)


def pickles(subject: Subject) -> Iterator[str]:
    if pickle.loads(pickle.dumps(subject.attack)) != subject.attack:
        yield "a copy by pickle is not equal to it"


def something(subject: Subject) -> Iterator[str]:
    data = planted(HAIR, both=True)
    trial = run(subject.attack, Planted(), data, subject.threat)
    moved = Planted()(trial.x_adv).argmax(1) != data.labels
    if subject.attack.access is Access.NONE:
        if trial.x_adv.equal(data.x):
            yield "it leaves every image as it is"
    elif not (trial.broken | moved).any():
        yield f"none of {len(data)} images falls that lie {HAIR:g} from the boundary of a linear model"


def planted_weakness(subject: Subject) -> Iterator[str]:
    if subject.attack.access is not Access.GRADIENTS or subject.threat.norm is Norm.NONE:
        return
    data = planted(reach(subject.threat) / 2)
    trial = run(subject.attack, Planted(), data, subject.threat)
    broken = trial.broken | (Planted()(trial.x_adv).argmax(1) != data.labels)
    if subject.attack.minimises:
        broken &= subject.threat.distance(trial.x_adv, data.x) <= subject.threat.eps
    if 2 * int(broken.sum()) < len(data):
        yield (
            f"{int(broken.sum())} of {len(data)} images of a linear model fall in {subject.threat}, and for each of"
            " them half that ball is enough"
        )


RULES: tuple[Rule[Subject], ...] = (
    Rule("declared", declared, "the class says too little: `list attacks` and the choice of attacks by access read it"),
    Rule(
        "runs",
        runs,
        "An attack returns adversarial images like x, and asks the oracle for no more than its `access` says",
        first=True,
    ),
    Rule("ball", ball, "The judge counts no success outside: end with threat.project(x_adv, x)"),
    Rule("point", point, "In a ball of size 0 only the image is left: step sizes and starts must scale with eps"),
    Rule("dtype", wide, "Make tensors by x.new_zeros, zeros_like or .to(x), never by a dtype or a device of their own"),
    Rule("shapes", shapes, "Images are (N, C, H, W) with any C, H and W: nothing may assume colour or a square"),
    Rule(
        "company",
        company,
        "An image's result may depend on its own row alone: no mean over the batch, no early end for all, random"
        " numbers from `draws`",
    ),
    Rule("seed", seeds, "All random numbers come from `draws`, and an attack keeps nothing between two calls"),
    Rule("untouched", untouched, "Clone before you write in place, and ask only the oracle"),
    Rule("meter", meter, "Ask only the oracle, or its as_module()"),
    Rule("access", access, "Declare the least that is enough: models that grant no more could be attacked too"),
    Rule("cost", cost, "State at least what is spent: plans and prices of grids, and the audit, rely on it"),
    Rule("budget", budget, "Images without budget answer NaN, label -1, gradient 0: compare so that these lose"),
    Rule("targets", targets, "Where oracle.targeted, y is the class to reach; or refuse by a ConfigError"),
    Rule(
        "settings",
        settings,
        "Annotate fields with types, and refuse what means nothing by a ConfigError in __post_init__",
    ),
    Rule("pickle", pickles, "Workers are sent attacks by pickle: settings are plain values, the class is importable"),
    Rule("something", something, "It finds nothing that is there: look for a sign, a step size, a ball that is empty"),
    Rule(
        "planted",
        planted_weakness,
        "A linear model is the easiest there is: look at the sign of the gradient, the step size and how many steps",
    ),
)
