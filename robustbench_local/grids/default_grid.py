"""The grid of whoever names a model and data and nothing else: the attacks of a suite, within the usual ball."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from robustbench_local.config import reading
from robustbench_local.core.errors import ConfigError
from robustbench_local.data.load import count_of
from robustbench_local.grids.plan import as_list
from robustbench_local.grids.suites import suite

SUITE = "standard"
_USUAL = {"mnist": "linf:0.3", "cifar10": "linf:8/255"}
_OTHERS = "linf:4/255"  # of photographs, as RobustBench has it for ImageNet


def default_values(said: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(a name for its results, the keys of the grid). said: what is given, data and models among it; `suite` names the
    attacks (standard). ConfigError where either is missing, with what to type.
    """
    values = dict(said)
    models, data = as_list(values.get("models")), [str(each) for each in as_list(values.get("data"))]
    if not models and not data:
        known = ", ".join(reading.names("grid"))
        raise ConfigError(
            "which grid? Name one, as in `robustbench-local run quickstart`, or a path to a .yaml file; or say data=..."
            f" models=... Grids: {known}"
        )
    if not models:
        raise ConfigError("which model? Say models=my_models.py:net too, or name one of `robustbench-local list grids`")
    if not data:
        raise ConfigError(
            "which images? Say data=cifar10, data=mnist or data=folder:PATH too (evaluate: --data cifar10)"
        )
    chosen = str(values.pop("suite", SUITE))
    usual: dict[str, Any] = {
        "attacks": [f"suite:{chosen}"],
        "threats": {name: [_USUAL.get(name, _OTHERS)] for name in data},
    }
    if not {"n", "ids"} & values.keys():
        split = str(values.get("split", "test"))
        usual["n"] = min(suite(chosen).images, *(count_of(name, split) for name in data))
    return _name(models[0]), usual | values


def _name(model: Any) -> str:
    """ "net" of "my_models.py:net" and of "net.onnx"; "zoo-mnist-none" of "zoo:mnist/none"."""
    text = str(model.get("name", "model") if isinstance(model, Mapping) else model)
    file, colon, member = text.partition(":")
    if colon and file.endswith(".py"):
        text = member
    elif PurePath(text).suffix and "://" not in text:
        text = PurePath(text).stem
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")[:60] or "model"
