"""The call a script makes: a model, images in any form, one attack or several -> what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, overload

from torch import Tensor, nn

from robustbench_local.config.arguments import OneAttack, Threat, checked
from robustbench_local.config.ranges import Count, Seed
from robustbench_local.core.attack import Attack
from robustbench_local.core.bound_methods import Method
from robustbench_local.core.containment import guarded
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.progress import Part, Progress, Terminal
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.data.load import count_of, open_numbered
from robustbench_local.data.own import crop_for
from robustbench_local.evaluation.answer_cache import AnswerCache
from robustbench_local.evaluation.evaluate import (
    JUDGE_SETTINGS,
    Tensors,
    home,
    judge_of,
    judged,
    named_by_content,
    not_judged,
)
from robustbench_local.evaluation.given import tensors_of
from robustbench_local.evaluation.preflight import check_images
from robustbench_local.evaluation.verdicts import Verdicts
from robustbench_local.grids.attack_list import Planned, one_attack, planned, several
from robustbench_local.grids.certified_verdicts import with_certificates
from robustbench_local.grids.suites import suite as suite_of
from robustbench_local.models.classifier import describe
from robustbench_local.models.load import load_model

Entry: TypeAlias = str | Attack | Mapping[str, Any]  # "pgd", "suite:quick", PGD(steps=10) or {"pgd": {"steps": 10}}
USUAL = "linf:8/255"
MOST = 1000  # images of a data set that is named, where nobody says how many


@overload
def evaluate(
    model: nn.Module | str,
    x: Any,
    y: Any = None,
    *,
    attacks: Entry | Sequence[Entry],
    threats: Threat | Sequence[Threat] = ...,
    threat: Threat = ...,
    seed: int = ...,
    n: int | None = ...,
    progress: bool | Progress = ...,
    attacker: tuple[Tensor, Tensor] | None = ...,
    keep_images: bool = ...,
    certify: Method | None = ...,
    **settings: Any,
) -> Verdicts: ...
@overload
def evaluate(
    model: nn.Module | str,
    x: Any,
    y: Any = None,
    attack: OneAttack = ...,
    *,
    threats: Sequence[Threat],
    seed: int = ...,
    n: int | None = ...,
    progress: bool | Progress = ...,
    attacker: tuple[Tensor, Tensor] | None = ...,
    keep_images: bool = ...,
    certify: Method | None = ...,
    **settings: Any,
) -> Verdicts: ...
@overload
def evaluate(
    model: nn.Module | str,
    x: Any,
    y: Any = None,
    attack: OneAttack = ...,
    threat: Threat = ...,
    seed: int = ...,
    *,
    n: int | None = ...,
    progress: bool | Progress = ...,
    attacker: tuple[Tensor, Tensor] | None = ...,
    keep_images: bool = ...,
    certify: Method | None = ...,
    **settings: Any,
) -> Verdict: ...
@guarded()
@checked()
def evaluate(
    model: nn.Module | str,
    x: Any,
    y: Any = None,
    attack: OneAttack = "pgd",
    threat: Threat = USUAL,
    seed: Seed = 0,
    *,
    attacks: Any = None,
    threats: Any = None,
    n: Count | None = None,
    progress: bool | Progress = False,
    attacker: tuple[Tensor, Tensor] | None = None,
    keep_images: bool = True,
    certify: Method | None = None,
    **settings: Any,
) -> Verdict | Verdicts:
    """Attack model on images x (N, C, H, W) in [0, 1] with labels y (N,), and judge what comes back.

    Args:
        model: an nn.Module, or the name of a model, as load_model takes it.
        x: a tensor or an array; an iterable of batches (x, y), such as a DataLoader; or the name of a data set:
            "cifar10", "folder:PATH".
        y: the labels of a tensor or an array.
        attack: one attack, "pgd" or attacks.PGD(steps=40), and threat: "linf:8/255", ("linf", 8/255) or a ThreatModel;
            they give a Verdict.
        attacks: several, also {"pgd": {"steps": 10}} and "suite:quick", each within every one of threats that it has a
            norm for; either of the two gives Verdicts.
        n: the first n images; of a data set that is named, up to 1,000 where nothing is said, and of folders and
            arrays of all classes alike.
        progress: show how far it is.
        attacker: images and labels that an attack may learn from (a substitute's seeds), none of them among x.
        keep_images: whether verdicts hold the images and what became of them, x and x_adv.
        certify: also say which images no attack can break, by "ibp" or "crown" (see `certify`), or of a model that
            certifies itself by sampling so; where nothing is known a warning says why.
        settings: the attack's (steps=40) and the judge's (targets, budget, batch_size, precision, count, eot, draws,
            allow_chance: a model at chance on clean images is refused with the likely reason, unless this is true).

    Raises DataError, ModelError, ThreatError, AccessError, ConfigError or PluginError, each naming the value and the
    likely cause; ContradictionError where an attack broke what is certified.
    """
    _check_one_of("attack", attack != "pgd", attacks)
    _check_one_of("threat", threat != USUAL, threats)
    judging = {name: settings.pop(name) for name in tuple(settings) if name in JUDGE_SETTINGS}
    net = load_model(model, device="auto") if isinstance(model, str) else model
    within_all = [ThreatModel.parse(each) for each in (several(threats) if threats is not None else [threat])]
    if attacks is None and threats is None:
        pairs = [Planned(*one_attack(attack, settings), within_all[0])]
    else:
        if settings:
            raise ConfigError(
                f"{', '.join(settings)}: settings of one attack, and several are asked for: write"
                ' attacks=[{"pgd": {"steps": 10}}, ...], or attacks.PGD(steps=10)'
            )
        data = x if isinstance(x, str) else ""
        pairs = planned(several(attack if attacks is None else attacks), within_all, net, data)
    judge = judge_of(seed, judging)
    images = _images(net, x, y, n)
    own = None if attacker is None else not_judged(*attacker, images)
    known, found = AnswerCache(), []
    with Terminal() if progress is True else progress or Progress() as shown_progress:
        for place, pair in enumerate(pairs):
            part = Part(shown_progress, f"{pair.name} {pair.threat}", place / len(pairs), 1 / len(pairs))
            verdict = judged(
                judge,
                net,
                images,
                pair.attack,
                pair.threat,
                part,
                attacker=own,
                known=known,
                keep_images=keep_images,
                name=pair.name,
            )
            shown_progress.line(str(verdict))
            found.append(verdict)
        if certify is not None:
            found = with_certificates(found, [pair.threat for pair in pairs], net, images, certify, shown_progress)
    return found[0] if attacks is None and threats is None else Verdicts(tuple(found))


def benchmark(
    model: nn.Module | str,
    data: str = "cifar10",
    threat: Threat = "linf:8/255",
    *,
    suite: str = "standard",
    n: int | None = None,
    progress: bool | Progress = True,
    **settings: Any,
) -> Verdicts:
    """The attacks of a suite (quick, standard, full) on a data set: `evaluate` with its usual number of images.

    No audit of the evaluation follows: `robustbench-local evaluate` makes one, with rows and a page.
    """
    size = min(suite_of(suite).images, count_of(data)) if n is None else n
    found: Verdicts = evaluate(
        model, data, attacks=f"suite:{suite}", threats=[threat], n=size, progress=progress, **settings
    )
    return found


def _check_one_of(name: str, given: bool, several: Any) -> None:
    """ConfigError where both one and several of them are given."""
    if given and several is not None:
        raise ConfigError(f"{name} and {name}s are both given: {name}s holds them all")


def _images(model: nn.Module, x: Any, y: Any, n: int | None) -> Tensors:
    """What is judged, on the model's device; of a data set cropped and numbered as the model says that it needs."""
    if isinstance(x, str) and y is None:
        said = describe(model)
        crop = None if said.size is None else crop_for(x, said.size)
        count = min(MOST, count_of(x)) if n is None else n
        opened = open_numbered(said.names, x, n=count, resize=said.resize if crop else None, crop=crop)
        images, labels = opened[:], opened.labels
    else:
        images, labels = tensors_of(x, y, n)
    check_images(images, labels)
    device = home(model, images)
    return named_by_content(images.detach().to(device), labels.to(device))
