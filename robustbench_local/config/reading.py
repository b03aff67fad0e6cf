"""YAML file + key=value overrides -> plain values: overrides in Hydra's grammar, and files that extend others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from robustbench_local.config.vetting import check_plain, vetted
from robustbench_local.core.errors import ConfigError, did_you_mean

FOLDER = Path(__file__).parent


def names(kind: str) -> list[str]:
    """The packaged files of a kind ("grid" or "zoo"), by name: "cifar10_pgd", "cifar10/none"."""
    folder = FOLDER / kind
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def find(kind: str, name: str) -> Path:
    """The file of a packaged name, or of the user's own where name is a path to a .yaml; ConfigError where neither."""
    if name.endswith((".yaml", ".yml")):
        try:
            path = Path(name).expanduser().absolute()
            found = path.is_file()
        except (OSError, RuntimeError, ValueError) as error:  # a name too long, no such home, a NUL
            raise ConfigError(f"{name[:200]!r} names no {kind} file: {error}") from error
        if not found:
            raise ConfigError(f"there is no {kind} file {path}")
        return path
    known = names(kind)
    if name not in known:
        raise ConfigError(
            f'unknown {kind} "{name[:200]}"{did_you_mean(name, known)}: one of {", ".join(known)},'
            " or a path to a .yaml file"
        )
    return FOLDER / kind / f"{name}.yaml"


def read(path: Path, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file, with overrides in place of what it says; a dotted key reaches into a mapping.

    A file may extend others, as Hydra's do: `defaults: [cifar10_pgd, _self_]` finds them beside it and among the
    packaged ones, and its own values replace theirs.
    ConfigError where a file or an override is not what it should be (see `vetting`).
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue

    try:
        config = OmegaConf.create()
        for text in vetted(path, [FOLDER / "grid"]):
            config.merge_with(OmegaConf.create(text))
            config.pop("defaults", None)
        check_plain(overrides)
        for key, value in overrides.items():
            plain = str(value) if isinstance(value, PurePath) else value
            OmegaConf.update(config, key, plain, merge=False, force_add=True)
        values = OmegaConf.to_container(config, resolve=False, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{path.stem} needs a value for {error.full_key}: give {error.full_key}=...") from error
    except Exception as error:  # PyYAML and OmegaConf die of many things that a stranger's file may hold
        raise ConfigError(f"{path} cannot be read: {_brief(error)}") from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _brief(error: Exception) -> str:
    """What went wrong, in a few lines: an error may quote all that it did not understand."""
    said = str(error) if str(error) else type(error).__name__
    return said if len(said) <= 600 else f"{said[:600]} ..."


def parse(texts: Sequence[str]) -> dict[str, Any]:
    """["n=100", "attacks=[fgsm,{pgd:{steps:10}}]"] -> {"n": 100, "attacks": [...]}; ConfigError where it is no such."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser, values = OverridesParser.create(), {}
    for text in texts:
        try:
            override = parser.parse_override(text)
        except (HydraException, ValueError, RecursionError) as error:  # a number of 5,000 digits; brackets without end
            raise ConfigError(
                f"{text[:200]!r} is no key=value: {str(error).splitlines()[0]}. Lists are written attacks=[fgsm,pgd],"
                " settings {pgd:{steps:10}}, and the shell needs quotes around spaces and braces"
            ) from error
        if override.is_sweep_override():
            raise ConfigError(f"{text!r} holds several values: write a list, {override.key_or_group}=[...]")
        if override.is_delete() or override.package is not None:
            raise ConfigError(f"{text!r} is no key=value")
        values[override.key_or_group] = override.value()
    return values
