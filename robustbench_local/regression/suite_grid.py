"""A check as a grid: one model, the attacks of its suite, one selection of images."""

from __future__ import annotations

from dataclasses import asdict, replace

from robustbench_local.config.schema import GridConfig
from robustbench_local.config.settings import construct, defaults
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.progress import Progress
from robustbench_local.data.images import Images
from robustbench_local.grids.cell import Cell
from robustbench_local.grids.grid import Grid
from robustbench_local.grids.plan import read_config
from robustbench_local.grids.run import measured
from robustbench_local.grids.suites import SUITES, suite
from robustbench_local.regression.settings import Check
from robustbench_local.report.text import slug
from robustbench_local.storage.row import Row
from robustbench_local.storage.sealing import digest

SUITE_FILE = ".yaml"


def open_grid(check: Check, folder: str, progress: Progress) -> Grid:
    """The check's grid, resolved; nothing runs. ConfigError where its suite is not one model's on some images."""
    grid = Grid.of(_config(check, folder), f"{slug(check.key)[:60]}-{digest(check.key, 6)}", progress)
    if len({id(cell.model) for cell in grid.cells}) != 1 or len(grid.images) != 1:
        raise ConfigError(
            f'suite "{check.suite}" has several models, defenses or selections of images: a check has one'
        )
    return grid


def images_of(grid: Grid) -> Images:
    (images,) = grid.images.values()
    return images


def run(grid: Grid) -> list[Row]:
    """The rows, corruptions last. Adversarial images are kept, of corruptions the answers alone."""
    aimed, others = grid.only(is_aimed), grid.only(lambda cell: not is_aimed(cell))
    parts = (
        replace(aimed, config=replace(grid.config, save="x_adv")),
        replace(others, config=replace(grid.config, save="scores")),
    )
    return [row for part in parts if part.cells for row in measured(part)]


def is_aimed(cell: Cell) -> bool:
    """Whether its attack is an adversary's, and no corruption."""
    return not isinstance(cell.attack, Corruption)


def in_words(cell: Cell, config: GridConfig) -> str:
    """An attack with all that its strength depends on, but for its seed: two suites are the same where these are."""
    settings = ", ".join(f"{key}={value}" for key, value in asdict(cell.attack).items())
    judged = {
        "eot": cell.eot,
        "draws": cell.draws,
        "count": cell.count,
        "precision": config.precision,
        "targets": config.targets,
        "budget": config.budget,
        "adaptive": cell.adaptive,
        "under": config.attack_under,
    }
    usual = defaults(GridConfig)
    changed = [f"{key} {value}" for key, value in judged.items() if value != usual.get(key)]
    version = cell.attack.version_in(cell.threat.norm, config.budget)
    return ", ".join([f"{cell.attack_name}({settings}) version {version}", str(cell.threat), *changed])


def _config(check: Check, folder: str) -> GridConfig:
    values = check.for_grid()
    if check.suite.endswith(SUITE_FILE):
        usual = defaults(Check)
        said = {key: value for key, value in values.items() if value != usual.get(key, ...) and value != []}
        return replace(read_config(check.suite, said), results=folder, pictures=0)
    if check.suite not in SUITES:
        suite(check.suite)
    if suite(check.suite).attacks and check.threat is None:
        raise ConfigError(f'suite "{check.suite}" attacks within a ball: say which, as threat="linf:2/255"')
    values |= {"attacks": [f"suite:{check.suite}"], "results": folder, "pictures": 0}
    return construct(GridConfig, values, f'check "{check.key}"')
