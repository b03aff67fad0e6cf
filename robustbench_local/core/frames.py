"""Columns as a pandas DataFrame. pandas is loaded when one is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from robustbench_local.core.errors import ConfigError

if TYPE_CHECKING:
    from pandas import DataFrame


def data_frame(columns: Mapping[str, Sequence[Any]]) -> DataFrame:
    """One of these columns, all of one length. ConfigError where pandas is not installed."""
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise ConfigError(
            f"a data frame needs pandas, which cannot be imported ({error}): pip install pandas"
        ) from error
    return DataFrame(dict(columns))
