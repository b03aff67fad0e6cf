"""The names of the methods that bound what attacks can reach, the cheapest first, each as strong as those before."""

from __future__ import annotations

from typing import Literal, get_args

Method = Literal["ibp", "crown", "alpha_crown", "branch_and_bound"]
METHODS: tuple[Method, ...] = get_args(Method)
SECONDS = 30.0  # of processor time an image, of branch_and_bound where nothing else is said
