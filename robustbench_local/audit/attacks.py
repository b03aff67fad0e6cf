"""An attack of the user's own, put to the proof: does it find what is known to be there, and spend what it says?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_local.audit.check import check
from robustbench_local.audit.finding import Result, sound, suspicious, unchecked, worst
from robustbench_local.audit.statistics import weaker
from robustbench_local.audit.subject import Subject
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack, IterativeAttack
from robustbench_local.core.threat import Norm, ThreatModel

NONE = "no attack of yours is audited"
PLANTED = 32  # images, at most
WALK = 10  # steps of a label attack, at most
SHARE = 0.6  # of the way to the edge of the ball where the planted examples begin


class Planted(nn.Module):
    """A model that is right on x (N, C, H, W), with an adversarial example in the ball around every image.

    The nearest of x is left by walking along a known direction, cut into `parts` that all have to be walked far enough;
    only the part that is furthest behind has a gradient, so that more than one part takes more than one step.
    """

    def __init__(self, x: Tensor, y: Tensor, threat: ThreatModel, classes: int, parts: int = 1) -> None:
        super().__init__()
        inwards = torch.where(x < 0.5, 1.0, -1.0)
        walk = threat.climb(x, inwards, x, 2 * threat.eps) - x
        lines = torch.arange(x.shape[2], device=x.device) * parts // x.shape[2]
        own = lines == torch.arange(parts, device=x.device)[:, None]  # (parts, H)
        cut = inwards[:, None] * own[:, None, :, None]  # (N, parts, C, H, W)
        length = (cut * walk[:, None]).flatten(2).sum(2)
        self.register_buffer("centres", x.clone())
        self.register_buffer("slopes", (cut.flatten(2) / (SHARE * length.clamp_min(1e-12))[..., None]))
        self.register_buffer("labels", y.clone())
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        """(N, classes): the label's logit falls, and the next class's rises, as the walk goes on."""
        centres, slopes = self.get_buffer("centres").to(x), self.get_buffer("slopes").to(x)
        nearest = torch.cdist(x.detach().flatten(1), centres.flatten(1)).argmin(1)
        walked = torch.einsum("npd,nd->np", slopes[nearest], (x - centres[nearest]).flatten(1)).amin(1)
        label = self.get_buffer("labels")[nearest]
        logits = x.new_full((len(x), self.classes), -10.0)
        logits = logits.scatter(1, label[:, None], (1 - walked)[:, None])
        return logits.scatter(1, (label[:, None] + 1) % self.classes, (walked - 1)[:, None])


@check(
    "the attack finds what is planted",
    source="Zimmermann et al. 2022, arXiv:2206.13991",
    advice="believe no number of this attack before it finds what is there, and what a plain attack finds",
    attack=True,
)
def planted(subject: Subject) -> Result:
    """Against a plain attack of the same access, on models with an example inside the ball around every image."""
    attack = subject.attack
    if attack is None:
        return unchecked(NONE)
    if subject.threat.norm not in (Norm.LINF, Norm.L2) or not subject.threat.eps:
        return unchecked("nothing is planted in this threat model")
    if attack.access is Access.NONE:
        return unchecked("no plain attack asks for as little")
    most = subject.effort.walked if attack.access is Access.LABELS else PLANTED
    n, results = min(subject.attacked, most), []
    once = getattr(attack, "steps", 1) == 1
    hard = attack.access is Access.GRADIENTS and not attack.minimises and not once
    name, settings = _plain(attack, once, subject)
    for parts in (1, 2) if hard else (1,):
        model = Planted(subject.x[:n], subject.y[:n], subject.threat, subject.classes, parts)
        tag = f"planted:{parts}"
        own = subject.run(attack, model=model, tag=tag, rows=subject.first_rows(n))
        plain = subject.run(find_attack(name, settings), model=model, tag=tag, rows=subject.first_rows(n))
        if own is not None and plain is not None:
            what = f"examples in {parts} parts, this attack against {name}"
            results.append(weaker(own.robust, plain.robust, what))
    return worst(results) or unchecked("the attack cannot run here")


def _plain(attack: Attack, once: bool, subject: Subject) -> tuple[str, dict[str, int]]:
    """The house's attack of the same access, no longer than the one it is held against."""
    match attack.access:
        case Access.GRADIENTS if once and not attack.minimises:
            return "fgsm", {}
        case Access.GRADIENTS:
            steps = getattr(attack, "steps", subject.effort.steps)
            return "pgd", {"steps": min(steps, subject.effort.steps)}
        case Access.SCORES:
            return "square", {"steps": subject.effort.queries}
        case _:
            return "hopskipjump", {"steps": min(getattr(attack, "steps", WALK), WALK)}


@check(
    "queries are as stated",
    source="Carlini et al. 2019, arXiv:1902.06705, section 5",
    advice="look for an early return, or a setting that is not read; correct the attack's cost() if it is wrong",
    attack=True,
)
def spending(subject: Subject) -> Result:
    """The meter against the attack's own cost(), on the image that stayed robust and on which it spent most."""
    attack = subject.attack
    if attack is None:
        return unchecked(NONE)
    stated = attack.cost(subject.classes, subject.threat.norm)
    if stated == (0, 0):
        return unchecked("the attack states no cost")
    if attack.minimises or (isinstance(attack, IterativeAttack) and attack.memoryless):
        return unchecked("the attack may end early where further steps change nothing")
    verdict = subject.run(attack)
    if verdict is None or not verdict.robust.any():
        return unchecked("no image stayed robust")
    each = subject.effort.eot if subject.random else 1
    most = [int(spent[verdict.robust].max()) for spent in (verdict.forwards, verdict.backwards)]
    said = [each * passes for passes in stated]
    text = f"{most[0]} forwards and {most[1]} backwards on a robust image, {said[0]} and {said[1]} are stated"
    off = any(2 * spent < due or spent > 2 * due + 2 for spent, due in zip(most, said, strict=True))
    return suspicious(text) if off else sound(text)


CHECKS = (planted, spending)
