"""Grids on a torch.export program, which refuses eval(): the same rows as of the network it was exported from."""

from __future__ import annotations

from pathlib import Path

import torch

from robustbench_local import load_model, run_grid


def test_an_exported_program_has_the_rows_of_its_network(tmp_path: Path) -> None:
    net, count = load_model("zoo:mnist/none"), torch.export.Dim("count", min=1)
    program = torch.export.export(net, (torch.zeros(2, 1, 28, 28),), dynamic_shapes=({0: count},))
    torch.export.save(program, tmp_path / "net.pt2")
    rows = run_grid(
        "mnist_pgd",
        results=str(tmp_path),
        models=["zoo:mnist/none", str(tmp_path / "net.pt2")],
        defenses=["none", "bit_depth"],
        attacks=["fgsm"],
        threats=["linf:0.05"],
        n=16,
        source="bundled",
    )
    assert [row["status"] for row in rows] == 4 * ["ok"]
    found = [(row.results["clean_accuracy"], row.results["robust_accuracy"]) for row in rows]
    assert found[:2] == found[2:] and 0 < found[0][1] < 1
