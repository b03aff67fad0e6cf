"""TensorBoard: a run per row in the grid's folder, with its settings as hyperparameters.

tensorboard --logdir results/NAME/tensorboard
"""

from __future__ import annotations

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from robustbench_local.storage.sinks.sink import Entry, Sink

FOLDER = "tensorboard"


class Tensorboard(Sink):
    """The page "HParams" compares rows."""

    def send(self, entry: Entry) -> None:
        about = {**entry.about, "key": entry.key, "grid": entry.grid}
        with SummaryWriter(str(self.folder / FOLDER / entry.key)) as writer:
            for summary in hparams(about, dict(entry.figures)):
                writer.file_writer.add_summary(summary)
            for name, value in entry.figures.items():
                writer.add_scalar(name, value)
