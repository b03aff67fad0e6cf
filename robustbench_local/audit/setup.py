"""Set-up: is the model a function from one image to logits, as every attack takes it to be?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import itemgetter

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from robustbench_local.audit.check import Check, check
from robustbench_local.audit.evidence import Rows
from robustbench_local.audit.finding import Result, Status, broken, sound, suspicious, unchecked
from robustbench_local.audit.statistics import by_share
from robustbench_local.audit.subject import Subject
from robustbench_local.core import losses
from robustbench_local.core.access import Access, granted
from robustbench_local.core.decision import ROUNDING, success_margin
from robustbench_local.core.threat import Norm
from robustbench_local.evaluation.chance import better_range

CARLINI = "Carlini et al. 2019, arXiv:1902.06705"
AUTOATTACK = "Croce and Hein 2020, arXiv:2003.01690, and its checks of the model"
CROCE_TEST_TIME = "Croce et al. 2022, arXiv:2202.13711"

UNDERFLOW = 87.3  # exp(-87.3) is the smallest normal float32: beyond this margin cross-entropy has no gradient left

# flags without a number, as preflight and judge raise them
FLAGS = {
    "undeclared_randomness": (
        Status.BROKEN,
        "five forward passes on the same images gave different answers, which the model did not declare",
    ),
    "changed": (Status.BROKEN, "after the attack the model answers clean images differently than before"),
    "probabilities": (
        Status.SUSPICIOUS,
        "the model returns probabilities: of their logarithms the gradient is lost where they round to 0 or 1",
    ),
    "nan_logits": (Status.SUSPICIOUS, "NaN among the logits of clean images"),
    "extra_classes": (Status.SUSPICIOUS, "most clean images are answered with classes that the data do not have"),
    "at_chance": (Status.BROKEN, "the model is at chance on clean images"),
    "input_range": (Status.BROKEN, "with another range of pixels the model is right on many more clean images"),
    "class_order": (Status.SUSPICIOUS, "with its classes numbered otherwise the model is right on many more images"),
}


def _flagged(rows: Rows) -> Iterator[Result]:
    """What was flagged when the model was first asked, and about the images that came back."""
    for each in rows:
        for flag in each.row.results["flags"]:
            name, _, count = flag.partition(":")
            if name in FLAGS:
                status, text = FLAGS[name]
                yield status, f"{each}: {text}", {}
            elif name == "no_gradient":
                continue  # that has a check of its own
            elif count.isdecimal():  # of images; few_classes:3/10 is about the sample, and the table says it
                faults = torch.arange(len(each.robust)) < int(count)
                yield by_share(faults, f"{each}: {name.replace('_', ' ')}")
        yield sound(f"{each}: no flag of the set-up")


flagged = Check(
    "set-up",
    source=f"{CARLINI}; Croce and Hein 2020, arXiv:2003.01690",
    advice="audit the model by itself",
    of_rows=_flagged,
)


@check("evaluation mode", source=AUTOATTACK, advice="let model.eval() reach every module before it is deployed")
def evaluation_mode(subject: Subject) -> Result:
    names = [
        name or "the model" for name, module in subject.model.named_modules() if getattr(module, "training", False)
    ]
    if names:
        return broken(f"after eval() still in training mode: {', '.join(names[:3])}", modules=len(names))
    return sound("every module follows eval()")


@check(
    "randomness",
    source="Athalye et al. 2018, arXiv:1802.00420, section 4.2; " + AUTOATTACK,
    advice="declare it (Defended with stochastic=True, numbers from its draws), and attack with EOT",
)
def randomness(subject: Subject) -> Result:
    """On clean images it is measured before all else; some models are random only off the data."""
    if "undeclared_randomness" in subject.flags:
        return *FLAGS["undeclared_randomness"], {}
    for name, x in subject.variants.items():
        result = by_share(subject.varying(x), f"asked again, undeclared, other answers to {name} images,")
        if result[0] > Status.SOUND:
            return result
    if subject.random:
        return sound("declared, and its answers repeat for the same draws; attacked with EOT, judged on fresh draws")
    return sound("five forward passes gave the same answers")


@check("logits", source=CARLINI, advice="return what comes before the softmax, unrounded")
def logits(subject: Subject) -> Result:
    if granted(subject.model) < Access.GRADIENTS:
        return unchecked("no gradient depends on their form")
    if "probabilities" in subject.flags:
        return *FLAGS["probabilities"], {}
    total = subject.first.sum(1)
    steady = not subject.declares_surrogate  # of a vote, say, the sum is the number of votes
    if steady and bool((subject.first >= 0).all()) and bool(((total - total.mean()).abs() < 1e-3 * total.mean()).all()):
        times = float(total.mean())
        return broken(f"all are positive and add up to {times:.4g}: probabilities, {times:.4g} times as large", n=times)
    levels = len(subject.first.unique())
    if levels < min(len(subject.first), 10):
        few = f"{subject.first.numel()} logits take {levels} values: "
        slope = subject.slope(subject.few, subject.few_labels, losses.margin)
        if slope is None or (slope[1] == 0).flatten(1).all(1).cpu().double().mean() > 0.5:
            return broken(few + "they carry no more than a label", n=levels)
        return sound(few + "scores say little, as those of a vote, but gradients pass through a surrogate", n=levels)
    return sound("not probabilities, not rounded")


@check(
    "logits' scale",
    source="Carlini and Wagner 2017, arXiv:1608.04644 (distillation); " + CARLINI,
    advice="divide the logits by a constant, which changes no label, and attack by the margin as well",
)
def logit_scale(subject: Subject) -> Result:
    if granted(subject.model) < Access.GRADIENTS:
        return unchecked("no gradient depends on their scale")
    margin = -success_margin(subject.first, subject.few_labels)
    margin = margin[margin > 0]
    if not len(margin):
        return unchecked("none of the images is classified as labelled")
    middle = float(margin.median())
    if middle < ROUNDING * float(losses.size(subject.first, subject.few_labels).median()):
        return broken(f"the median margin is {middle:.2g}, which rounding decides", median_margin=middle)
    text = f"the median margin is {middle:.3g}; cross-entropy underflows above {UNDERFLOW}, as"
    if bool((margin > UNDERFLOW).any()) and subject.unharmed:
        return sound(f"{text} on {int((margin > UNDERFLOW).sum())} images; the audited attack needs none")
    return by_share(margin > UNDERFLOW, text, median_margin=middle)


@check("input range", source=AUTOATTACK, advice="give pixels in [0, 1] and let the model normalise")
def input_range(subject: Subject) -> Result:
    high = float(subject.x.max())
    if high <= 2 / 255:
        return broken(f"the brightest pixel is {high:.2g}: images were divided by 255 twice", brightest=high)
    other = better_range(subject.x, subject.clean, subject.right)
    if other is not None:
        points = 100 * (other.right - int(subject.clean.sum())) / len(subject.clean)
        return broken(f"the model is right on {points:.1f} points more {other.what}. {other.advice}", p=other.p)
    return sound("no other range of pixels suits the model better")


@check(
    "optimisation in inference",
    source=CROCE_TEST_TIME,
    advice="differentiate through all of it, or a surrogate of it, and transfer from the static model",
)
def inner_optimisation(subject: Subject) -> Result:
    kept = used = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += 1
        return tensor

    def unpack(tensor: Tensor) -> Tensor:
        nonlocal used
        used += 1
        return tensor

    with saved_tensors_hooks(pack, unpack):
        subject.ask(subject.few)
    if used:
        return suspicious("one inference runs backward passes of its own", saved=kept, used=used)
    return sound("inference is one forward pass", saved=kept)


@check("eps 0", source=CARLINI, advice="find out what the attack or its evaluation changes besides the image")
def eps_zero(subject: Subject) -> Result:
    if subject.threat.norm is Norm.NONE:
        return unchecked("this threat model has no eps")
    verdict = subject.run(subject.evaluation, subject.scaled(0.0), rows=subject.first_rows(len(subject.few)))
    if verdict is None:
        return unchecked("the attack cannot run on this model")
    return by_share(verdict.clean != verdict.robust, "with a budget of 0 the verdict is not that on the clean image")


@check("NaN and ties", source=CARLINI, advice="either is counted as the model's error: find where it comes from")
def nan_and_ties(subject: Subject) -> Result:
    """Of clean and perturbed images; where these are well, of those that attacks asked about."""
    if granted(subject.model) < Access.GRADIENTS:  # votes tie
        lost = ~torch.cat([subject.first, subject.first_perturbed]).isfinite().all(1)
        return by_share(lost, "scores are NaN or infinite")
    result = _of_answers({"clean": subject.first, "perturbed": subject.first_perturbed})
    if result[0] > Status.SOUND:
        return result
    attacked, found = subject.pgd(), subject.recording
    if attacked is not None:
        result = max(result, _of_answers({"attacked": subject.ask(attacked.x_adv)}), key=itemgetter(0))
    if found is not None:
        asked = by_share(found.nan, "logits are NaN or infinite where an attack asked for a gradient,")
        result = max(result, asked, key=itemgetter(0))
    return result


def _of_answers(answers: Mapping[str, Tensor]) -> Result:
    faults = {}
    for name, answer in answers.items():
        top = answer.topk(2, dim=1).values
        faults[f"NaN or infinite on {name} images"] = ~answer.isfinite().all(1)
        faults[f"tied on {name} images"] = top[:, 0] == top[:, 1]
    worst = max(faults, key=lambda name: int(faults[name].sum()))
    return by_share(faults[worst], f"logits are {worst},")


CHECKS = (
    evaluation_mode,
    randomness,
    logits,
    logit_scale,
    input_range,
    inner_optimisation,
    eps_zero,
    nan_and_ties,
    flagged,
)
