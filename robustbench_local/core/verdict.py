"""What one attack did to one model, image by image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from robustbench_local.core import notebook, resubmission, tensor_file
from robustbench_local.core.errors import StoreError
from robustbench_local.core.frames import data_frame

if TYPE_CHECKING:
    from pandas import DataFrame

EXAMPLES = 6  # images that a notebook shows
KIND = "verdict"  # of a saved file
_NOTES = "notes/"  # before the names of an attack's own figures there


@dataclass(frozen=True)
class Verdict:
    """What one attack did to one model, image by image: tensors on the model's device, in the order of the images.

    Robust accuracy is an upper bound: a stronger attack may break more. Of a random model clean and robust mean "on
    more than half of the R draws", and the accuracies are means over draws. In a terminal it is one line, in a notebook
    a small table and six images before and after the attack.

    Attributes:
        labels: (N,) int64.
        ids: (N,) int64, what addresses each image's random numbers: its place in the data set, or, of tensors given to
            evaluate, a hash of its pixels, so that equal images have equal verdicts.
        clean: (N,) bool, classified correctly without an attack.
        robust: (N,) bool, classified correctly, and not broken.
        robust_8bit: (N,) bool, the same after rounding the attacked images to 8 bits inside the ball.
        x_adv: (N, C, H, W), what the attack returned; (0, C, H, W) where that was not to be kept.
        distance: (N,), of x_adv from the image, in the norm of the threat model.
        clean_scores: (N, K) log-probabilities of the clean images; K + 1 where the model rejects; of a random model the
            log of their mean over draws; NaN where a logit was not finite.
        scores: (N, K) the same of x_adv; of the clean image where x_adv is outside the ball.
        forwards: (N,) forward passes that the attack spent.
        backwards: (N,) backward passes that the attack spent.
        flags: what makes the figures doubtful, such as "no_gradient:63".
        seconds: wall time.
        clean_bits: (N, R) bool, clean per draw; None where the model is not random.
        bits: (N, R) bool, robust per draw; None where the model is not random.
        bits_8bit: (N, R) bool, robust_8bit per draw; None where the model is not random.
        success: (N,), of attacks that minimise only: the share of draws that misclassify x_adv, wherever it is.
        prepared_forwards: forward passes that the attack spent in preparing, on all its own images together.
        prepared_backwards: backward passes, the same.
        checked_forwards: forward passes that checking the model took, in all; of a verdict that was put together from
            parts each of them checks.
        judged_forwards: forward passes that judging took, in all; less where another verdict had asked before.
        detects: the model is a detector.
        notes: the attack's figures per image, (N,) each, NaN where it has none.
        corrupted: (N,) bool, of a corruption only: classified correctly when corrupted, whatever the clean image is.
        attack: its name, "" where evaluate did not make this.
        threat: the threat model as text, "" the same.
        certified: (N,) bool, what no attack within this threat model can break; None where that was not asked, or where
            nothing is known.
        confidence: with which each image by itself is certified, None of a proof.
        x: (N, C, H, W), the clean images, where x_adv was to be kept; otherwise None.
    """

    labels: Tensor
    ids: Tensor
    clean: Tensor
    robust: Tensor
    robust_8bit: Tensor
    x_adv: Tensor
    distance: Tensor
    clean_scores: Tensor
    scores: Tensor
    forwards: Tensor
    backwards: Tensor
    flags: tuple[str, ...]
    seconds: float
    clean_bits: Tensor | None = None
    bits: Tensor | None = None
    bits_8bit: Tensor | None = None
    success: Tensor | None = None
    prepared_forwards: int = 0
    prepared_backwards: int = 0
    checked_forwards: int = 0
    judged_forwards: int = 0
    detects: bool = False
    notes: dict[str, Tensor] = field(default_factory=dict)
    corrupted: Tensor | None = None
    attack: str = ""
    threat: str = ""
    x: Tensor | None = None
    certified: Tensor | None = None
    confidence: float | None = None

    @property
    def certified_accuracy(self) -> float | None:
        """The share of the images, in [0, 1], that no attack within the threat model can break; None as `certified`."""
        return None if self.certified is None else _mean(self.certified)

    @property
    def clean_accuracy(self) -> float:
        """The share of the images, in [0, 1], that are classified correctly without an attack."""
        return _mean(self.clean if self.clean_bits is None else self.clean_bits)

    @property
    def robust_accuracy(self) -> float:
        """The share of the images, in [0, 1], that are classified correctly and that the attack did not break."""
        return _mean(self.robust if self.bits is None else self.bits)

    @property
    def worst_of_ten(self) -> float | None:
        """Robust accuracy, in [0, 1], where ten fresh draws of each answer must all be right: of a random model, to an
        attacker who may ask again. None of a model that is not random, of fewer draws than ten, and of a corruption.
        """
        if self.bits is None or self.corrupted is not None:
            return None
        found = resubmission.withstands(self.bits.cpu().double().mean(1).numpy(), self.bits.shape[1])
        return None if found is None else float(found.mean())

    @property
    def corruption_accuracy(self) -> float | None:
        """The share of the corrupted images that are classified correctly, as CIFAR-10-C counts; None of an attack."""
        return None if self.corrupted is None else _mean(self.corrupted if self.bits is None else self.bits)

    @property
    def robust_accuracy_8bit(self) -> float:
        """The same after rounding the attacked images to 8 bits inside the ball, as a file would hold them."""
        return _mean(self.robust_8bit if self.bits_8bit is None else self.bits_8bit)

    @property
    def about(self) -> str:
        """ "pgd within linf:8/255": what was measured, as far as it is known."""
        within = f" within {self.threat}" if self.threat not in ("", "none") else ""
        return f"{self.attack or 'attack'}{within}"

    def __str__(self) -> str:
        flags = f"; {', '.join(self.flags)}" if self.flags else ""
        certain = self.certified_accuracy
        least = "" if certain is None else f"certified {percent(certain)}, "
        return f"{self.about}: clean {percent(self.clean_accuracy)}, {least}{self._found()}{flags}"

    def __repr__(self) -> str:
        return f"Verdict({self})"

    def _repr_html_(self) -> str:
        heads = ("attack", "threat", "images", "clean", "robust", "flags")
        cells = (self.attack, self.threat, f"{len(self.labels):,}", percent(self.clean_accuracy))
        shown = notebook.table(heads, [(*cells, f"at most {percent(self.robust_accuracy)}", ", ".join(self.flags))])
        kept = self.x is not None and len(self.x_adv) > 0
        return shown + notebook.row(map(self.figure, self.broken()[:EXAMPLES].tolist())) if kept else shown

    def broken(self) -> Tensor:
        """(n,) int64: the places of the images that were right, and that the attack broke."""
        return (self.clean & ~self.robust).nonzero()[:, 0]

    def figure(self, place: int) -> str:
        """HTML that shows that image before and after the attack; x and x_adv must have been kept."""
        assert self.x is not None
        was, now = int(self.labels[place]), int(self.scores[place].argmax())
        caption = f"image {place}: class {was} becomes {now}{f' ({self.attack})' if self.attack else ''}"
        return notebook.pair(self.x[place], self.x_adv[place], caption)

    def to_frame(self) -> DataFrame:
        """A row per image, as a pandas DataFrame; `predicted` is the class that the attacked image is given."""
        columns: dict[str, Any] = {
            "id": self.ids.tolist(),
            "label": self.labels.tolist(),
            "predicted": self.scores.argmax(1).tolist(),
            "clean": self.clean.tolist(),
            "robust": self.robust.tolist(),
            "robust_8bit": self.robust_8bit.tolist(),
            "distance": self.distance.tolist(),
            "forwards": self.forwards.tolist(),
            "backwards": self.backwards.tolist(),
        }
        return data_frame(columns | {name: values.tolist() for name, values in self.notes.items()})

    def save(self, path: str | Path) -> None:
        """Write all of it to an .npz file, which `load_verdict` reads. StoreError where it cannot be written."""
        tensors, plain = self.parts()
        tensor_file.write(Path(path).expanduser(), tensors, {"kind": KIND, **plain})

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(its tensors by name, its other values), as a file holds them."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "notes"}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        plain = {name: value for name, value in values.items() if name not in tensors and value is not None}
        return tensors | {f"{_NOTES}{name}": value for name, value in self.notes.items()}, plain

    @classmethod
    def of_parts(cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> Verdict:
        """What `parts` took apart. StoreError where anything is missing, or not known to this version."""
        notes = {name.removeprefix(_NOTES): value for name, value in tensors.items() if name.startswith(_NOTES)}
        values = {name: value for name, value in tensors.items() if not name.startswith(_NOTES)} | dict(plain)
        try:
            return cls(**values | {"flags": tuple(plain.get("flags", ())), "notes": notes})
        except TypeError as error:
            raise StoreError(f"this is no verdict, or one of another version: {error}") from error

    def _found(self) -> str:
        count = f"of {len(self.labels):,} images"
        if self.corruption_accuracy is not None:
            return f"{percent(self.corruption_accuracy)} {count} right when corrupted"
        again = f" ({resubmission.NAME} {percent(self.worst_of_ten)})" if self.worst_of_ten is not None else ""
        return f"robust at most {percent(self.robust_accuracy)}{again} {count}"


def percent(share: float) -> str:
    """ "34.0 %"."""
    return f"{100 * share:.1f} %"


def _mean(bits: Tensor) -> float:
    return bits.cpu().double().mean().item()
