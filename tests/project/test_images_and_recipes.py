"""Dockerfile and conda recipe: what they install is what pyproject.toml says. Nothing is built: neither is at hand."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]
NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}  # what conda-forge calls them


def needs() -> dict[str, str]:
    """{name of conda-forge: versions} of what the package needs to run."""
    asked = [Requirement(each) for each in PROJECT["dependencies"]]
    return {NAMES.get(each.name, each.name): str(each.specifier) for each in asked}


def recipe(text: str) -> dict[str, Any]:
    said: dict[str, Any] = yaml.safe_load(jinja2.Template(text).render(PYTHON="python"))
    return said


def amiss(text: str) -> list[str]:
    """Where a recipe says something else than pyproject.toml."""
    said = recipe(text)
    run = {
        name: set(spec.split(",")) for name, _, spec in (each.partition(" ") for each in said["requirements"]["run"])
    }
    asked = {name: set(spec.split(",")) for name, spec in (needs() | {"python": PROJECT["requires-python"]}).items()}
    found = [name for name in run | asked if run.get(name) != asked.get(name)]
    found += [f"version {said['package']['version']}"] * (str(said["package"]["version"]) != PROJECT["version"])
    scripts = [f"{name} = {target}" for name, target in PROJECT["scripts"].items()]
    found += [f"entry points {said['build']['entry_points']}"] * (said["build"]["entry_points"] != scripts)
    build = [each.replace(">=", " >=") for each in PYPROJECT["build-system"]["requires"]]
    found += [each for each in build if each not in said["requirements"]["host"]]
    about = said["about"]
    found += ["about"] * ((about["summary"], about["license"]) != (PROJECT["description"], PROJECT["license"]))
    return found


def test_the_recipe_says_what_pyproject_says() -> None:
    assert amiss((ROOT / "recipe/meta.yaml").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("said", "instead", "named"),
    [
        ("    - pytorch >=2.9\n", "    - pytorch >=2.8\n", "pytorch"),
        ("    - rich >=13\n", "", "rich"),
        ("    - rich >=13\n", "    - rich >=13\n    - polars\n", "polars"),
        ('"0.2.0"', '"0.1.0"', "version 0.1.0"),
        (">=1.3.8,<1.5", ">=1.3.8", "hydra-core"),
    ],
)
def test_a_recipe_that_differs_is_noticed(said: str, instead: str, named: str) -> None:
    text = (ROOT / "recipe/meta.yaml").read_text(encoding="utf-8")
    assert said in text
    assert amiss(text.replace(said, instead)) == [named]


def instructions() -> list[list[str]]:
    """The words of each instruction of the Dockerfile."""
    lines = [line for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    return [shlex.split(each) for each in "\n".join(lines).replace("\\\n", " ").splitlines() if each.strip()]


def test_the_image_is_for_a_cpu_unless_it_is_asked_for_cuda() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert ["ARG", "DEVICE=cpu"] in instructions()
    (install,) = [words for words in instructions() if words[0] == "RUN" and "micromamba" in words]
    for name in ("torch", "torchvision"):
        (word,) = [word for word in install if word.startswith(f"{NAMES.get(name, name)}>")]
        assert word.removesuffix("=${DEVICE}*") == f"{NAMES.get(name, name)}{needs()[NAMES.get(name, name)]}"
    assert "pytorch>=2.9=${DEVICE}*" in install and "--build-arg DEVICE=cuda" in text
    assert set(PYPROJECT["build-system"]["requires"]) <= set(install)  # no build isolation: they must be there
    entry = json.loads(text.partition("\nENTRYPOINT ")[2].partition("\n")[0])
    assert entry[-1] in PROJECT["scripts"]


def test_the_image_is_built_from_what_is_there_and_let_through() -> None:
    copied = [word for words in instructions() if words[0] == "COPY" for word in words[1:-1] if word[:2] != "--"]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_through = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert "*" in ignored and set(copied) == let_through
    assert all((ROOT / name).exists() for name in copied)
    needed = {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml", "robustbench_local"}
    links = {path.readlink().name for path in (ROOT / "robustbench_local").iterdir() if path.is_symlink()}
    assert needed | links == set(copied)
    assert not any(fnmatch("robustbench_local/py.typed", line) for line in ignored[2:] if line[0] != "!")


def test_the_commands_of_the_dockerfile_are_ours() -> None:
    said = re.findall(r"^#   docker run .* robustbench_local\S* (\w+)", (ROOT / "Dockerfile").read_text("utf-8"), re.M)
    assert said == ["run", "run"]
