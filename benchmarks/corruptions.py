"""All 34 published corruptions beside renderings of the published formulas: do ours follow the same law?

    python -m benchmarks.corruptions                 some minutes on a CPU: stop and go on at will
    python -m benchmarks.corruptions --images 1000 --only "fog spatter"

The same test images under ours and under benchmarks/_published.py, which draws numbers of its own: the mean change in
grey levels, the L2 distance from the clean image, and the error of the zoo's undefended network, at severities 1, 3
and 5. Differences are given in their standard errors over images (paired), that of errors with its interval too. Where
nothing is drawn, images are compared level by level. Frost is compared with the published photographs where the
package imagecorruptions, which holds them, is installed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import PIL
import scipy
import skimage
import torch

from benchmarks._kept import Row, keep, kept
from benchmarks._published import CODEC, EXACT, RENDERINGS, photographs, published
from benchmarks._timing import surroundings
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.draws import Draws
from robustbench_local.data.load import load_data
from robustbench_local.models.load import load_model
from robustbench_local.report.markdown import markdown_table

SEVERITIES = (1, 3, 5)
FAR = 3.5  # standard errors: of some 200 comparisons a tenth of one is expected beyond

Values = npt.NDArray[np.float64]


def corruption(name: str, severity: int) -> Corruption:
    found = find_attack(name, {"severity": severity})
    assert isinstance(found, Corruption)
    return found


def rendered(name: str, severity: int, x: torch.Tensor) -> torch.Tensor:
    """x (N, C, H, W) in [0, 1] -> the published images, from draws of their own."""
    levels = x.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    rng = np.random.default_rng(severity)
    images = [published(name, each.squeeze(), severity, rng).reshape(each.shape) for each in levels]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / x.new_tensor(255)


def errors(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> Values:
    """(N,): 1 where the model errs."""
    with torch.no_grad():
        answers = torch.cat([model(part).argmax(1) for part in x.split(100)])
    return (answers != y).double().numpy()


def compare(ours: Values, theirs: Values) -> dict[str, float]:
    """Means over images, and their difference with its standard error, paired."""
    difference = ours - theirs
    return {"ours": ours.mean(), "theirs": theirs.mean(), "error": difference.std(ddof=1) / len(difference) ** 0.5}


def measure(name: str, severity: int, images: int) -> Row:
    attack = corruption(name, severity)
    data = "mnist" if attack.benchmark == "MNIST-C" else "cifar10"
    x, y = load_data(data, n=images)
    model = load_model(f"zoo:{data}/none").eval()
    own = Draws(severity, torch.arange(len(x)))  # else the luck of one severity would be that of all
    both = attack.apply(x, own), rendered(name, severity, x)
    change = [(seen - x).mul(255).double().mean((1, 2, 3)).numpy() for seen in both]
    length = [(seen - x).double().flatten(1).norm(dim=1).numpy() for seen in both]
    row: Row = {
        "change": compare(*change),
        "l2": compare(*length),
        "wrong": compare(*(errors(model, seen, y) for seen in both)),
    }
    if name in EXACT | CODEC:
        apart = (both[0] - both[1]).abs().mul(255).round()
        row["apart"] = {"most": float(apart.max()), "mean": float(apart.mean())}
    return row


def away(found: dict[str, float]) -> float:
    """The difference in its standard errors; 0 where images are the same."""
    difference = found["ours"] - found["theirs"]
    return difference / found["error"] if found["error"] > 0 else 0.0


HEADS = (
    "corruption",
    "severity",
    "change, ours",
    "theirs",
    "s.e.",
    "L2, ours",
    "theirs",
    "s.e.",
    "error %, ours",
    "theirs",
    "difference, 95 %",
    "largest / mean levels apart",
)


def line(row: Row) -> list[str]:
    what, change, l2, wrong = row["what"], row["change"], row["l2"], row["wrong"]
    points, reach = 100 * (wrong["ours"] - wrong["theirs"]), 196 * wrong["error"]
    exact = row.get("apart")
    drawn = [f"{away(each):+.1f}" if exact is None else "" for each in (change, l2)]
    return [
        what["name"],
        str(what["severity"]),
        f"{change['ours']:.2f}",
        f"{change['theirs']:.2f}",
        drawn[0],
        f"{l2['ours']:.2f}",
        f"{l2['theirs']:.2f}",
        drawn[1],
        f"{100 * wrong['ours']:.1f}",
        f"{100 * wrong['theirs']:.1f}",
        f"{points:+.1f} ± {reach:.1f}",
        f"{exact['most']:.0f} / {exact['mean']:.3f}" if exact else "",
    ]


def markdown(rows: Sequence[Row], images: int) -> str:
    drawn = [row for row in rows if "apart" not in row and row["what"]["name"] != "frost"]
    found = [(row["what"]["name"], abs(away(row[key]))) for row in drawn for key in ("change", "l2", "wrong")]
    exact = [row["apart"] for row in rows if row["what"]["name"] in EXACT]
    some = sum(far > 2 for _, far in found)
    beyond = ", ".join(sorted({name for name, far in found if far > FAR})) or "none"
    about = {
        **surroundings(torch.device("cpu")),
        "opencv": cv2.__version__,
        "scikit-image": skimage.__version__,
        "scipy": scipy.__version__,
        "pillow": PIL.__version__,
    }
    most, mean = (max((each[key] for each in exact), default=0) for key in ("most", "mean"))
    beside = "[_published.py](../../../benchmarks/_published.py)"
    text = [
        "# Published corruptions beside renderings of their formulas",
        "",
        f"{images} test images each. change: of the mean, in grey levels; s.e.: ours less theirs, in standard errors",
        f"of that; error: of the zoo's undefended network; theirs: {beside}, drawn anew. frost: theirs are the",
        "published photographs, ours are generated.",
        "",
        f"Of {len(found)} comparisons of what is drawn (without frost), {some} are beyond 2",
        f"standard errors; beyond {FAR}: {beyond}. Where nothing is drawn, no level is more than {most:.0f} away, and",
        f"{mean:.3f} on average at most; but for JPEG, whose codec is of another make.",
        "",
        markdown_table(HEADS, map(line, rows)),
    ]
    return "\n".join([*text, "", ", ".join(f"{key}: {value}" for key, value in about.items())]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/corruptions"))
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--only", default="", help="names, with spaces between")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    file, rows = given.out / "corruptions.jsonl", []
    for name in RENDERINGS:
        if (given.only and name not in given.only.split()) or (name == "frost" and not photographs()):
            continue
        for severity in SEVERITIES:
            version = corruption(name, severity).version
            what: dict[str, Any] = {"name": name, "version": version, "severity": severity, "images": given.images}
            row = next((row for row in kept(file) if row["what"] == what), None)
            if row is None:
                row = {"what": what, **measure(name, severity, given.images)}
                keep(file, row)
            rows.append(row)
            print(" ".join(line(row)), flush=True)
    (given.out / "corruptions.md").write_text(markdown(rows, given.images), encoding="utf-8")


if __name__ == "__main__":
    main()
