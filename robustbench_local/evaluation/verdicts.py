"""The verdicts of several attacks on the same images, and what is left after all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import torch
from torch import Tensor

from robustbench_local.core import notebook, tensor_file
from robustbench_local.core.errors import ConfigError, StoreError
from robustbench_local.core.frames import data_frame
from robustbench_local.core.verdict import EXAMPLES, Verdict, percent
from robustbench_local.core.verdict import KIND as ONE
from robustbench_local.metrics.rates import Floats, Rate, rate

if TYPE_CHECKING:
    from pandas import DataFrame

_SEVERAL = "verdicts"  # the kind of a saved file


@dataclass(frozen=True)
class Verdicts(Sequence[Verdict]):
    """Verdicts on the same model and images, in the order in which the attacks were named, threat by threat.

    Indexed by place, or by (attack, threat): v["pgd", "linf:8/255"]. A worst case is per image: what any attack within
    that threat broke is broken, and of a random model the least share of draws counts. Corruptions are in no worst
    case.
    """

    verdicts: tuple[Verdict, ...]

    def __len__(self) -> int:
        return len(self.verdicts)

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.verdicts)

    @overload
    def __getitem__(self, place: int | tuple[str, str]) -> Verdict: ...
    @overload
    def __getitem__(self, place: slice) -> Verdicts: ...
    def __getitem__(self, place: int | slice | tuple[str, str]) -> Verdict | Verdicts:
        if isinstance(place, slice):
            return Verdicts(self.verdicts[place])
        if isinstance(place, int):
            return self.verdicts[place]
        found = {(verdict.attack, verdict.threat): verdict for verdict in self.verdicts}
        if place not in found:
            known = "; ".join(f"{attack}, {threat}" for attack, threat in found)
            raise KeyError(f"{place} is none of the verdicts: {known}")
        return found[place]

    @property
    def threats(self) -> tuple[str, ...]:
        """The threat models of its attacks, without corruptions."""
        return tuple(dict.fromkeys(verdict.threat for verdict in self.verdicts if verdict.corrupted is None))

    @property
    def clean_accuracy(self) -> float:
        """The share of the images, in [0, 1], that are classified correctly without an attack."""
        return self.verdicts[0].clean_accuracy

    @property
    def robust_accuracy(self) -> float:
        """The share of the images, in [0, 1], that no attack broke within any of the threats."""
        if not self.threats:
            raise ConfigError("corruptions attack nobody, and nothing else is here: each has its corruption_accuracy")
        return float(np.minimum.reduce([self.robust(threat) for threat in self.threats]).mean())

    def robust(self, threat: str) -> Floats:
        """(N,): 1 where no attack within that threat broke the image, 0, or the least share of draws."""
        shares = [_robust(each) for each in self.verdicts if each.threat == threat and each.corrupted is None]
        if not shares:
            raise KeyError(f"{threat} is none of the threats: {', '.join(self.threats)}")
        least: Floats = np.minimum.reduce(shares)
        return least

    def certified(self, threat: str) -> Rate | None:
        """The share that no attack within that threat can break, with its 95 % interval over images; None where that
        was not asked, or nothing is known.
        """
        marks = next((each.certified for each in self.verdicts if each.threat == threat), None)
        return None if marks is None else rate(marks.cpu().double().numpy())

    def worst(self, threat: str) -> Rate:
        """Robust accuracy within that threat after all attacks, an upper bound, with its 95 % interval over images."""
        return rate(self.robust(threat))

    def __repr__(self) -> str:
        after = f"{len(self)} verdict{'s' * (len(self) != 1)} on {len(self.verdicts[0].labels):,} images"
        found = [
            f"{self._least(threat)}robust at most {_with_interval(self.worst(threat))} within {threat}"
            for threat in self.threats
        ]
        return f"Verdicts({after}: {', '.join([f'clean {percent(self.clean_accuracy)}', *found])})"

    def _least(self, threat: str) -> str:
        certain = self.certified(threat)
        return "" if certain is None else f"certified {_with_interval(certain)}, "

    def _repr_html_(self) -> str:
        heads = ("attack", "threat", "clean", "robust at most", "flags")
        rows = [
            (each.attack, each.threat, percent(each.clean_accuracy), _with_interval(_rate(each)), ", ".join(each.flags))
            for each in self.verdicts
        ]
        clean = percent(self.clean_accuracy)
        rows += [("all of them", threat, clean, _with_interval(self.worst(threat)), "") for threat in self.threats]
        rows += [
            ("certified", threat, clean, f"at least {_with_interval(certain)}", "")
            for threat in self.threats
            if (certain := self.certified(threat)) is not None
        ]
        return notebook.table(heads, rows) + self._pictures()

    def _pictures(self) -> str:
        """Six images that fell, each as the first attack that broke it left it, where images were kept."""
        shown: dict[int, Verdict] = {}
        for verdict in self.verdicts:
            if verdict.x is not None and len(verdict.x_adv):
                for place in verdict.broken().tolist():
                    shown.setdefault(place, verdict)
        return notebook.row(shown[place].figure(place) for place in sorted(shown)[:EXAMPLES])

    def to_frame(self) -> DataFrame:
        """A row per verdict, as a pandas DataFrame; accuracies in [0, 1] with their 95 % intervals over images."""
        rates = [_rate(each) for each in self.verdicts]
        return data_frame(
            {
                "attack": [each.attack for each in self.verdicts],
                "threat": [each.threat for each in self.verdicts],
                "images": [len(each.labels) for each in self.verdicts],
                "clean": [each.clean_accuracy for each in self.verdicts],
                "certified": [each.certified_accuracy for each in self.verdicts],
                "robust": [each.value for each in rates],
                "robust_low": [each.low for each in rates],
                "robust_high": [each.high for each in rates],
                "robust_8bit": [each.robust_accuracy_8bit for each in self.verdicts],
                "worst_of_ten": [each.worst_of_ten for each in self.verdicts],
                "corrupted": [each.corruption_accuracy for each in self.verdicts],
                "forwards": [each.forwards.double().mean().item() for each in self.verdicts],
                "backwards": [each.backwards.double().mean().item() for each in self.verdicts],
                "seconds": [each.seconds for each in self.verdicts],
                "flags": [", ".join(each.flags) for each in self.verdicts],
            }
        )

    def save(self, path: str | Path) -> None:
        """Write all of them to one .npz file, which `load_verdict` reads; clean images that they share are in it once.

        StoreError where it cannot be written.
        """
        x = self.verdicts[0].x
        shared = all(each.x is x for each in self.verdicts)
        tensors: dict[str, Tensor] = {}
        about = []
        for place, verdict in enumerate(self.verdicts):
            own, plain = (replace(verdict, x=None) if shared and place else verdict).parts()
            tensors |= {f"{place}/{name}": value for name, value in own.items()}
            about.append(plain)
        tensor_file.write(Path(path).expanduser(), tensors, {"kind": _SEVERAL, "verdicts": about, "shared": shared})


def load_verdict(path: str | Path) -> Verdict | Verdicts:
    """What the `save` of a Verdict or of Verdicts wrote, the same to the bit, on the CPU.

    StoreError where the file is not there, damaged, or holds no verdict.
    """
    path = Path(path).expanduser()
    tensors, about = tensor_file.read(path)
    kind = about.pop("kind", None)
    if kind == ONE:
        return Verdict.of_parts(tensors, about)
    plains = about.get("verdicts")
    if kind != _SEVERAL or not isinstance(plains, list) or not plains:
        raise StoreError(f"{path} holds no verdict: Verdict.save writes one")
    found: list[Verdict] = []
    for place, plain in enumerate(plains):
        prefix = f"{place}/"
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        verdict = Verdict.of_parts(own, plain)
        found.append(replace(verdict, x=found[0].x) if place and about.get("shared") else verdict)
    return Verdicts(tuple(found))


def _robust(verdict: Verdict) -> Floats:
    bits = verdict.robust if verdict.bits is None else verdict.bits.double().mean(1)
    return np.asarray(bits.to(torch.float64).cpu().numpy())


def _rate(verdict: Verdict) -> Rate:
    return rate(_robust(verdict))


def _with_interval(found: Rate) -> str:
    return f"{percent(found.value)} ({100 * found.low:.1f}-{100 * found.high:.1f})"
