"""Weights & Biases: a run per row, grouped by grid. WANDB_PROJECT, WANDB_MODE and its like mean what they always do."""

from __future__ import annotations

import os

import wandb

from robustbench_local.storage.sinks.sink import Entry, Sink

PROJECT = "robustbench_local"  # where WANDB_PROJECT says nothing


class Wandb(Sink):
    """A run's configuration is what was measured, its summary the figures."""

    def send(self, entry: Entry) -> None:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=entry.key,  # sent twice, it is one run
            resume="allow",
            name=entry.name,
            group=entry.grid,
            config=dict(entry.about),
            reinit="create_new",  # a run of the user's stays open
            settings=wandb.Settings(silent=True, console="off"),
        )
        with run:
            run.summary.update(dict(entry.figures))
