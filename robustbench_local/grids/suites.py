"""Attacks by the name of a suite: what each model gets depends on the access it grants and on the norm."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from robustbench_local.config.plugins import find_attack, named
from robustbench_local.core.access import Access
from robustbench_local.core.errors import ConfigError, did_you_mean
from robustbench_local.core.threat import Norm
from robustbench_local.models.zoo import zoo_names

BY_ACCESS = "by_access"
CORRUPTIONS = ("gaussian_noise", "defocus_blur", "brightness", "contrast", "jpeg_compression")
COMMON = (  # the fifteen of CIFAR-10-C and ImageNet-C (Hendrycks and Dietterich 2019)
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
SEVERITY = 3
PGD = ("pgd", {"pgd": {"random_start": False}})  # some images that resist one of the two starts fall to the other
SPARSE = {"sparse_rs": {"steps": 2000}}  # in L0 alone
_PREFIX = "suite:"
_ASKING = {  # the access that each needs
    Access.GRADIENTS: ("fgsm", "pgd", "best"),
    Access.SCORES: ("square", {"one_pixel": {"threat": "l0:1"}}),
    Access.LABELS: ("hopskipjump",),
}


@dataclass(frozen=True)
class Suite:
    """summary: what it is for. attacks: by the access they need; a model gets those of the highest access that it
    grants and that know the norm, and those that need more are left out by name. corruptions: whatever it grants.
    images: how many are judged where nobody says.
    """

    summary: str
    attacks: Mapping[Access, tuple[Any, ...]] = field(default_factory=dict)
    corruptions: tuple[str, ...] = ()
    images: int = 1000

    def of(self, access: Access, norms: Collection[Norm]) -> list[Any]:
        """The entries of a grid's list of attacks."""
        fitting: dict[Access, list[tuple[Access, Any]]] = {}  # by level what each entry needs, and the entry
        for level, attacks in self.attacks.items():
            known = [(find_attack(*named(each, "attack")), each) for each in attacks]
            fitting[level] = [(attack.access, each) for attack, each in known if attack.norms & {*norms}]
        best = max((level for level, own in fitting.items() if own and level <= access), default=None)
        asked = [each for level, own in fitting.items() for needed, each in own if level is best or needed > access]
        return [*asked, *({name: {"severity": SEVERITY}} for name in self.corruptions)]


SUITES = {
    "ci": Suite(
        "every change: under a minute for 500 small images and a small network on two CPU cores",
        {
            Access.GRADIENTS: ({"best": {"effort": 0.35}}, SPARSE),
            Access.SCORES: ({"square": {"steps": 1000}}, SPARSE),
            Access.LABELS: ({"hopskipjump": {"steps": 20}},),
        },
    ),
    "release": Suite(
        "every release: the strongest attacks at full effort, and common corruptions",
        {
            Access.GRADIENTS: ("best", "sparse_rs"),
            Access.SCORES: ("square", "sparse_rs"),
            Access.LABELS: ("hopskipjump", "boundary"),
        },
        COMMON,
    ),
    "noise": Suite("common corruptions of severity 3, without an adversary", corruptions=COMMON),
    "quick": Suite(
        "a first look, in seconds of one core for 100 small images and a small network: stronger attacks leave less",
        {
            Access.GRADIENTS: ("fgsm", {"pgd": {"steps": 10}}),
            Access.SCORES: ({"square": {"steps": 300}},),
            Access.LABELS: ({"hopskipjump": {"steps": 5}},),
        },
        images=100,
    ),
    "standard": Suite(
        "a number to work with: PGD from either start, this package's strongest attack, and one without gradients",
        {
            Access.GRADIENTS: ("fgsm", *PGD, {"best": {"effort": 0.35}}, {"square": {"steps": 1000}}, SPARSE),
            Access.SCORES: ({"square": {"steps": 2000}}, SPARSE),
            Access.LABELS: ({"hopskipjump": {"steps": 20}},),
        },
        images=500,
    ),
    "full": Suite(
        "a number to publish: every attack at full effort, and common corruptions",
        {
            Access.GRADIENTS: ("fgsm", *PGD, "apgd", "autoattack", "best", "square", "sparse_rs"),
            Access.SCORES: ("square", "sparse_rs"),
            Access.LABELS: ("hopskipjump", "boundary"),
        },
        COMMON,
    ),
}


def chosen(entries: Iterable[Any], access: Access, data: str, norms: Collection[Norm]) -> list[Any]:
    """The attacks of a grid for a model that grants that access, with `by_access` and `suite:NAME` written out.

    Of `by_access`, attacks that learn from images or models of the attacker's own are among them where there are some:
    for the data sets of the zoo. ConfigError for a suite that is not known.
    """
    return [each for entry in entries for each in _written_out(entry, access, data, norms)]


def _written_out(entry: Any, access: Access, data: str, norms: Collection[Norm]) -> list[Any]:
    if entry == BY_ACCESS:
        return _allowed(access, data)
    if isinstance(entry, str) and entry.startswith(_PREFIX):
        return suite(entry.removeprefix(_PREFIX)).of(access, norms)
    return [entry]


def suite(name: str) -> Suite:
    """The suite of that name; ConfigError where there is none."""
    if name not in SUITES:
        raise ConfigError(f'unknown suite "{name}"{did_you_mean(name, SUITES)}: one of {", ".join(SUITES)}')
    return SUITES[name]


def _allowed(access: Access, data: str) -> list[Any]:
    asking = [each for needed, attacks in _ASKING.items() if needed <= access for each in attacks]
    surrogate = f"zoo:{data}/none"
    learning = ["substitute", {"transfer": {"surrogates": surrogate}}] if f"{data}/none" in zoo_names() else []
    return [*asking, *learning, *({name: {"severity": SEVERITY}} for name in CORRUPTIONS)]
