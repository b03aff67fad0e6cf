"""What a grid file and a zoo recipe may say. A key that is not here is an error with a suggestion."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Annotated, Any, Literal

from robustbench_local.config.ranges import Aim, Count, Counting, LocationText, Precision, Range, Seed
from robustbench_local.core.bound_methods import Method

Log = Literal["mlflow", "wandb", "tensorboard"]
Severity = Annotated[int, Range(1, 5)]


@dataclass(frozen=True)
class GridConfig:
    """Cells = data x models x defenses x attacks x threats x seeds x count x adaptive.

    data        mnist, cifar10, folder:PATH, arrays:PATH, parquet:PATH or hf:PATH; one or a list
    models      architectures, zoo:NAME, module:function, my_models.py:Net, files and servers (`list models`), or
                {name, weights, allow_pickle, schedule, trust, normalise, expects, about, variant}; with several data
                sets a mapping {data: [models]} says which goes where
    defenses    names, or {name: {setting: value}}. A bare name means the zoo's settings for that data set. A list
                within the list is one model: [jpeg, adversarial_training] is JPEG before the trained network
    attacks     names, or {name: {setting: value}}; `by_access` stands for what the access of each model allows (square,
                one_pixel, hopskipjump, corruptions and so on of one that shows no gradients), `suite:quick`,
                `suite:standard` and `suite:full` for what `evaluate` runs on it, `suite:ci`, `suite:release` and
                `suite:noise` for what regression checks do. `threat` or `threats` among the
                settings replaces the grid's, and with `n` the attack gets only so many of the grid's images, in a table
                of their own
                `eot` and `draws` among the settings of a defense replace the grid's, among an attack's those of both;
                an attack with `random_models: false` is not run on those
    threats     linf:8/255, l2:0.5, l1:12, l0:1, none; a list, or a mapping {data: [threats]}. Corruptions need none
    severities  of every corruption that does not say its own: 3, or [1, 2, 3, 4, 5]
    baseline    a defense, in front of the same architecture, that corruption errors are also given relative to
    model_info  who models are of: {MODEL or "MODEL / DEFENSE": {title, authors, venue, link, code, extra_data, licence,
                bibtex}}, which reports show and no row is named by
    certify     ibp, crown, alpha_crown or branch_and_bound: which images no attack within the threats can break
                (docs/bounds.md), of models that a bound is known of or that certify themselves by sampling; the
                column certified
    attack_under   a corruption and its severity, fog:3: images meet it first, attacks start there
    seeds       seeds of the attacks' randomness
    n, ids, sample, split, source   which images (see load_data): n=100, ids=1000:10000, sample=stratified (of a
                folder or arrays n are of all classes alike)
    resize, crop   of photographs: the length of the shorter side, and what is cut out of the middle (see load_data):
                resize=256 crop=224, or crop=[224, 160]
    device      auto takes the best there is of cuda (NVIDIA, AMD), xpu (Intel), mps (Apple), cpu; or one, as cuda:1
    count       all (every iterate counts), last (where restarts end, as papers judged), or the list of both
    adaptive    true attacks what is deployed; false is the naive column: attacks that need gradients, on the part
                without its defense (of what was only trained there is none); or the list of both
    precision, targets, budget, eot, draws, batch_size   how verdicts are reached (see judge.Judge)
    weights     a checkpoint for the one model of the grid; allow_pickle takes .pt and .pth files
    normalise, expects, about   of every model that does not say its own: what its input is normalised by (imagenet,
                cifar10, mnist, {mean, std}), the range of its pixels ("0-255"), a model.yaml
    trust       load models whose files run code when they are read
    allow_large takes an linf eps of 0.5 and more
    allow_chance attacks models that are at chance on clean images too; by default their cells fail, with the reason
    results     the folder in which a folder of this grid's name holds the rows and tables
    save        scores keeps the log-probabilities beside each row; x_adv keeps the adversarial images too
    pictures    of how many images of each model the page shows its adversarial twin, at most: 9, 3, or 0 for none; to
                draw them the model is asked some more, which no row counts
    dry_run     lists the cells and what they would cost; force does again what is done, here or by a neighbouring grid
    executor    who does the cells: inline (this process), local (processes of this machine), ray or slurm
    workers     how many of them, by default one for each device or core; worker=0/3 does one of three shares here
    cluster     what Ray or Slurm is told besides: {num_gpus: 1}, {slurm_partition: gpu}
    timeout     how long a cell may take, as 30m; memory: what a worker may hold, as 4GiB. Both need another process
    shard       cells of more images than this are done in parts of so many
    retry       tries again what was given up: cells that ended their workers, or took too long
    log         mlflow, wandb or tensorboard, or a list: each finished row is sent there once, too
    """

    data: str | list[str]
    models: str | list[Any] | dict[str, Any]
    attacks: str | list[Any]
    threats: str | list[str] | dict[str, Any] = field(default_factory=list)
    defenses: str | list[Any] = "none"
    severities: Severity | list[Severity] = field(default_factory=list)
    baseline: str | None = None
    model_info: dict[str, dict[str, Any]] = field(default_factory=dict)
    certify: Method | None = None
    attack_under: str | None = None
    seeds: Seed | list[Seed] = 0
    n: int | None = None
    ids: str | list[int] | None = None
    sample: str | None = None
    split: str = "test"
    source: LocationText | None = None
    resize: int | None = None
    crop: int | list[int] | None = None
    device: str = "auto"
    precision: Precision = "float32"
    adaptive: bool | list[bool] = True
    count: Counting | list[Counting] = "all"
    targets: Aim | None = None
    budget: Count | None = None
    eot: Count = 20
    draws: Count = 20
    batch_size: Count | None = None
    weights: LocationText | None = None
    allow_pickle: bool = False
    normalise: str | dict[str, list[float]] | None = None
    expects: str | list[float] | None = None
    about: LocationText | dict[str, Any] | None = None
    trust: bool = False
    allow_large: bool = False
    allow_chance: bool = False
    results: LocationText = "results"
    save: Literal["scores", "x_adv"] | None = None
    pictures: Annotated[int, Range(0, 30)] = 9
    dry_run: bool = False
    force: bool = False
    executor: Literal["inline", "local", "ray", "slurm"] | None = None
    workers: Count | None = None
    worker: str | None = None
    cluster: dict[str, Any] | None = None
    timeout: str | float | None = None
    memory: str | float | None = None
    shard: Count | None = None
    retry: bool = False
    log: Log | list[Log] | None = None


@dataclass(frozen=True)
class ModelConfig:
    """One model of a grid.

    weights: a checkpoint for it. schedule: other than the zoo's, where it must be trained. trust: load what runs code
    when it is read. normalise, expects: what its input is normalised by, and the range of its pixels. about: a
    model.yaml, or what it would say. variant: int8, int8_dynamic or pruned:0.5 instead of the float model; of an
    architecture the network inside the defense.
    """

    name: str
    weights: LocationText | None = None
    allow_pickle: bool = False
    schedule: dict[str, Any] = field(default_factory=dict)
    trust: bool = False
    normalise: str | dict[str, list[float]] | None = None
    expects: str | list[float] | None = None
    about: LocationText | dict[str, Any] | None = None
    variant: str | None = None

    @property
    def label(self) -> str:
        """What tables call it."""
        label = self.name if self.weights is None else f"{self.name} ({PurePath(self.weights).stem})"
        return label if self.variant is None else f"{label} {self.variant}"


@dataclass(frozen=True)
class ZooConfig:
    """How a model of the zoo is made.

    schedule: the fields of train.Schedule. threat: what its robust accuracy is measured within, by default what its
    defense trains for. verified: somebody ran it, and its figures are measured.
    """

    data: str
    architecture: str
    defense: str | dict[str, Any]
    schedule: dict[str, Any] = field(default_factory=dict)
    seed: Seed = 0
    threat: str | None = None
    verified: bool = True


@dataclass(frozen=True)
class MakeConfig(ZooConfig):
    """A zoo recipe and how to carry it out.

    attack: what measures the stored weights, on the first n test images (all by default), with eot draws per query
    where they are random. source: where images come from, resize and crop: what becomes of photographs (see load_data).
    folder: where the checkpoint goes, by default the package's own zoo. remeasure: train nothing, only measure the
    checkpoint that is there, and note the figures.
    """

    attack: str | dict[str, Any] = field(default_factory=lambda: {"pgd": {"steps": 40, "loss": "multi_targeted"}})
    n: Count | None = None
    eot: Count = 20
    source: LocationText | None = None
    resize: int | None = None
    crop: int | list[int] | None = None
    device: str = "auto"
    folder: LocationText | None = None
    remeasure: bool = False
