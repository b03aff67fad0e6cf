"""Published weights that are not on this machine: a dry run does not fetch them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import robustbench_local as rbl
from robustbench_local.core.downloads import downloads
from robustbench_local.core.errors import ModelError
from robustbench_local.models.published import check_may_fetch, in_hub


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of torch.hub and of Hugging Face's."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


@pytest.mark.parametrize("spec", ["torchvision:resnet18", "timm:resnet18.a1_in1k"])
def test_a_dry_run_names_what_it_would_have_to_fetch(spec: str) -> None:
    with downloads(False), pytest.raises(ModelError, match="a dry run downloads nothing"):
        rbl.load_model(spec)
    with downloads(False):
        assert rbl.load_model(spec, weights="random")


def test_what_was_fetched_before_may_be_used(hub: Path) -> None:
    url = "https://example.org/models/net-0123.pth"
    assert not in_hub(url)
    (hub / "checkpoints/net-0123.pth").touch()
    assert in_hub(url)
    with downloads(False):
        check_may_fetch("net", there=True)
    check_may_fetch("net", there=False)
