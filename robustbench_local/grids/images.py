"""The images of a grid: what is judged, and what an attacker may learn from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from robustbench_local.config.schema import GridConfig
from robustbench_local.core.errors import ConfigError
from robustbench_local.data.images import Images
from robustbench_local.data.load import open_data, open_numbered
from robustbench_local.data.own import crop_for
from robustbench_local.data.transform import arguments_of
from robustbench_local.grids.cell import Cell
from robustbench_local.grids.plan import as_list
from robustbench_local.training.builder import ModelBuilder


def sized(config: GridConfig, cells: Iterable[Cell], builder: ModelBuilder) -> GridConfig:
    """With photographs cropped to the size that the models declare, where the grid says none."""
    if config.resize is not None or config.crop is not None:
        return config
    found = [(cell.model.data, builder.described(cell.model)) for cell in cells]
    sizes = {(said.resize, crop_for(data, said.size, split=config.split)) for data, said in found if said.size}
    wanted = {(resize, crop) for resize, crop in sizes if crop is not None}
    if len(wanted) > 1:
        listed = "; ".join(f"resize={resize or 'null'} crop=[{crop[0]}, {crop[1]}]" for resize, crop in wanted)
        raise ConfigError(f"the models take images of several sizes, {listed}: give each a grid, or say crop")
    if not wanted:
        return config
    ((resize, crop),) = wanted
    return replace(config, resize=resize, crop=list(crop))


def numbering(data: str, cells: Iterable[Cell], builder: ModelBuilder) -> tuple[str, ...] | None:
    """The models' names of classes, by which a user's own images are numbered where they know any of these names."""
    if ":" not in data:
        return None
    named = {builder.described(cell.model).names for cell in cells if cell.model.data == data} - {()}
    if len(named) > 1:
        raise ConfigError(f"the models name the classes of {data} differently: give each its own grid")
    return named.pop() if named else None


def judged(config: GridConfig, data: str, n: int | None, device: torch.device, names: tuple[str, ...] | None) -> Images:
    return open_numbered(
        names or (),
        data,
        split=config.split,
        source=config.source,
        resize=config.resize,
        crop=config.crop,
        n=n or config.n,
        ids=config.ids,
        sample=config.sample,
        seed=int(as_list(config.seeds)[0]),
        device=device,
    )


def learnt_from(config: GridConfig, images: Images, data: str, names: tuple[str, ...] | None) -> Images:
    """What an attacker may learn from: the training split, without what is judged."""
    read = {"split": "train", "source": config.source, "device": images.device, **arguments_of(images.transform)}
    if names == images.classes:
        read["classes"] = names
    whole = open_data(data, **read)
    if config.split != "train":
        return whole
    left = whole.ids[~torch.isin(whole.ids, images.ids)].tolist()
    if not left:
        raise ConfigError(f"every training image of {data} is judged, and an attack learns from others: give n")
    return open_data(data, ids=left, **read)
