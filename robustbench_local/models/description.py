"""What a model says of itself: by its own file, by a model.yaml beside it, or by who loads it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from robustbench_local.config.ranges import Count, Finite, Range
from robustbench_local.config.settings import construct, fit_fields
from robustbench_local.config.vetting import vetted
from robustbench_local.core.access import Access
from robustbench_local.core.errors import ConfigError, ModelError, did_you_mean
from robustbench_local.evaluation.chance import STATISTICS
from robustbench_local.models.http.settings import endpoint_settings

Level = Literal["gradients", "scores", "labels"]
_LEVELS: dict[Access, Level] = {Access.GRADIENTS: "gradients", Access.SCORES: "scores", Access.LABELS: "labels"}
_KNOWN = {name.lower().replace("-", ""): each for named in STATISTICS.values() for name, each in named.items()}
_SAYS_NOTHING_OF_ANSWERS = ("access", "clean_accuracy", "endpoint", "resize")
_EXAMPLES = {
    "shape": "[3, 224, 224]       # channels, height, width of the images it takes",
    "layout": "NCHW               # or NHWC",
    "expects": "0-255             # the range of the pixels it takes",
    "normalise": "imagenet        # or cifar10, mnist, {mean: [...], std: [...]}",
    "classes": "10                # how many, or their names in order",
    "access": "scores             # gradients, scores or labels",
    "outputs": "logits            # logits, probabilities or labels",
    "version": '"1"               # which model it is: change it when the model changes',
}


@dataclass(frozen=True)
class Description:
    """None where nobody says.

    shape           (channels, height, width) of the images it takes; 0: any
    resize          the shorter side that photographs are scaled to before they are cropped to its shape
    layout          the order of axes that it takes: NCHW or NHWC
    expects         the range of its pixels, "0-255" or [-1, 1]; ours, in [0, 1], are stretched to it
    normalise       imagenet, cifar10, mnist or {mean, std}, per channel: subtracted and divided by, after `expects`
    classes         how many, or their names
    access          what it lets an attacker have: gradients, scores or labels
    outputs         logits, probabilities (whose logarithms are taken) or labels
    batch           how many images it takes at once, at most
    input, output   which of several inputs and outputs, by name
    version         which model it is, where no digest tells: the key of its rows
    clean_accuracy  what it is said to have on clean images, a share; a verdict on much less is flagged
    endpoint        of a model behind HTTP: budgets, prices, rates and the names of keys (see EndpointSettings)
    """

    shape: tuple[Annotated[int, Range(0)], Annotated[int, Range(0)], Annotated[int, Range(0)]] | None = None
    resize: Count | None = None
    layout: Literal["NCHW", "NHWC"] | None = None
    expects: str | tuple[Finite, Finite] | None = None
    normalise: str | dict[str, list[Finite]] | None = None
    classes: Count | list[str] | None = None
    access: Level | None = None
    outputs: Literal["logits", "probabilities", "labels"] | None = None
    batch: Count | None = None
    input: str | None = None
    output: str | None = None
    version: str | None = None
    clean_accuracy: Annotated[float, Range(0, 1)] | None = None
    endpoint: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        fit_fields(self)
        self.range, self.statistics, endpoint_settings(self.endpoint)

    @property
    def range(self) -> tuple[float, float]:
        """(lowest, highest) value of a pixel."""
        if self.expects is None:
            return 0.0, 1.0
        pair = _pair(self.expects) if isinstance(self.expects, str) else self.expects
        if pair is None or pair[0] >= pair[1]:
            raise ConfigError(
                f'expects is {self.expects!r}: write the lowest and the highest pixel, "0-255" or [-1, 1]'
            )
        return pair

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """(mean, deviation) per channel, in the units of `range`; None: nothing is normalised."""
        if self.normalise is None:
            return None
        if isinstance(self.normalise, str):
            if self.normalise not in _KNOWN:
                raise ConfigError(
                    f'normalise is "{self.normalise}"{did_you_mean(self.normalise, _KNOWN)}: one of'
                    f" {', '.join(_KNOWN)}, or {{mean: [...], std: [...]}} with a value per channel"
                )
            (low, high), (mean, std) = self.range, _KNOWN[self.normalise]
            return tuple(low + (high - low) * m for m in mean), tuple((high - low) * s for s in std)
        if self.normalise.keys() != {"mean", "std"}:
            raise ConfigError(f"normalise has {', '.join(self.normalise) or 'nothing'}: it needs mean and std")
        mean, std = (tuple(self.normalise[key]) for key in ("mean", "std"))
        if len(mean) != len(std) or not mean or min(std) <= 0:
            raise ConfigError(f"normalise has mean {mean} and std {std}: give one of each per channel, std above 0")
        if min(mean) > 1 and min(std) > 1 and self.range[1] <= 1:
            raise ConfigError(f"mean {mean} and std {std} are grey levels of 0 .. 255: say expects: 0-255 as well")
        return mean, std

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes; none where only their number is said, or nothing."""
        return tuple(self.classes) if isinstance(self.classes, list) else ()

    @property
    def class_count(self) -> int | None:
        return len(self.classes) if isinstance(self.classes, list) else self.classes

    @property
    def most(self) -> Access | None:
        """The access that is granted, where that is said."""
        return None if self.access is None else Access[self.access.upper()]

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of the images it takes, where it takes no others."""
        return self.shape[1:] if self.shape is not None and all(self.shape[1:]) else None

    def granting(self, access: Access) -> Self:
        """The same with this access."""
        return replace(self, access=_LEVELS[access])

    def said(self) -> dict[str, Any]:
        """What is said, by key."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def behaviour(self) -> dict[str, Any]:
        """What of it decides what the model answers."""
        return {key: value for key, value in self.said().items() if key not in _SAYS_NOTHING_OF_ANSWERS}

    def over(self, own: Self, what: str) -> Self:
        """What this says, and where it says nothing what the model's own file says.

        ModelError where the two disagree on what the file must know.
        """
        for key in ("shape", "layout"):
            mine, its = getattr(self, key), getattr(own, key)
            if mine is not None and its is not None and not _agree(mine, its):
                raise ModelError(f"{what} takes {key} {its}, and {key} {mine} is said of it: leave {key} out")
        return replace(own, **self.said())

    def check_says(self, keys: Iterable[str], spec: str, why: str = "") -> None:
        """ModelError that names what is not said of the model of that name, and shows the file to write."""
        missing = [key for key in keys if getattr(self, key) is None]
        if missing:
            lines = "\n".join(f"  {key}: {_EXAMPLES.get(key, '')}" for key in missing)
            raise ModelError(
                f'"{spec}" {why}does not say its {" and ".join(missing)}. Say it where you name the model (about), or'
                f" write model.yaml:\n  model: {spec}\n{lines}"
            )


def _agree(mine: object, its: object) -> bool:
    if isinstance(mine, tuple) and isinstance(its, tuple):
        return all(a == b or 0 in (a, b) for a, b in zip(mine, its, strict=True))
    return mine == its


def _pair(text: str) -> tuple[float, float] | None:
    found = re.fullmatch(r"\s*(-?[\d.]+)\s*(?:-|:|,|\.\.|to)\s*(-?[\d.]+)\s*", text)
    try:
        return (float(found[1]), float(found[2])) if found else None
    except ValueError:
        return None


def sidecar(file: Path) -> Path | None:
    """The description beside a model's file, if any: net.yaml of net.onnx, else model.yaml in its folder."""
    beside = (file.with_suffix(".yaml"), file.parent / "model.yaml") if file.suffix else (file / "model.yaml",)
    return next((path for path in beside if path.is_file()), None)


def read_description(path: Path) -> tuple[Description, str | None]:
    """(what a model.yaml says, the model that it names by `model`, if any). ConfigError where it is no such."""
    import yaml

    try:
        (text,) = vetted(path, ())
        values = yaml.safe_load(text) or {}
    except (ConfigError, yaml.YAMLError, OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as the description of a model: {error}") from error
    model = values.pop("model", None)
    if not (model is None or isinstance(model, str)):
        raise ConfigError(f"model of {path} is {model!r}: it must be the name of a model")
    return described(values, str(path)), model


def described(values: Mapping[str, Any], what: str) -> Description:
    """A description from a mapping as a model.yaml or a grid writes it; ConfigError on any mistake."""
    known = [field.name for field in fields(Description)]
    wrong = [key for key in values if key not in known]
    if wrong:
        raise ConfigError(
            f'{what} says "{wrong[0]}"{did_you_mean(str(wrong[0]), known)}: it may say {", ".join(known)}'
        )
    return construct(Description, values, what)
