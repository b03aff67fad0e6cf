"""The leaderboard's picture in docs/: a page of results/ as headless Chromium shows it. See make picture."""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

from robustbench_local.report.results import Results
from robustbench_local.report.write import write_report
from robustbench_local.storage.files import whole_file

GRID, SHOWN = "mnist_full", "#threat=linf:0.3"
SIZE = {"width": 1280, "height": 1150}
MOST = 150_000  # bytes


def main(results: Path, target: Path) -> None:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("playwright is not there: make dev")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("Chromium is not there: make browser")
    with tempfile.TemporaryDirectory() as folder:
        write_report(Results.read([results / GRID]), Path(folder), GRID)
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport=SIZE, color_scheme="light")
            page.goto((Path(folder) / "index.html").as_uri() + SHOWN, timeout=120_000)
            shot = page.screenshot(timeout=120_000)
            browser.close()
    file = io.BytesIO()
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    if file.tell() > MOST:
        sys.exit(f"{target} would be of {file.tell():,} bytes, more than {MOST:,}")
    with whole_file(target) as out:
        out.write(file.getvalue())
    print(f"{target}: {file.tell():,} bytes")


if __name__ == "__main__":
    main(Path("results"), Path("results/leaderboard.png"))
