"""The report card of one model, as `robustbench-local audit` asks for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustbench_local.audit.card import Card
from robustbench_local.audit.checklist import audit_model
from robustbench_local.audit.effort import Effort
from robustbench_local.audit.finding import Status
from robustbench_local.cli.audit_config import AuditConfig
from robustbench_local.cli.output import BROKEN, OK, SUSPICIOUS
from robustbench_local.config import reading
from robustbench_local.config.plugins import find_attack, named
from robustbench_local.config.settings import construct
from robustbench_local.core.attack import Attack
from robustbench_local.core.device import pick_device
from robustbench_local.data.images import Images
from robustbench_local.data.load import open_numbered
from robustbench_local.data.own import crop_for
from robustbench_local.grids.environment import environment
from robustbench_local.models.classifier import describe
from robustbench_local.models.description import Description
from robustbench_local.models.load import load_model
from robustbench_local.models.variants import make_variant, needs_calibration
from robustbench_local.models.zoo import zoo_names
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.storage.files import whole_file
from robustbench_local.training.calibration import calibration_images

EXIT = {Status.SOUND: OK, Status.UNCHECKED: OK, Status.SUSPICIOUS: SUSPICIOUS, Status.BROKEN: BROKEN}
SURROGATES = 2


def card_of(spec: str, overrides: list[str]) -> tuple[Card, dict[str, Any], int]:
    """(the card of that model, what it is about, the exit code)."""
    config = construct(AuditConfig, reading.parse(overrides), "audit")
    device = pick_device(config.device)
    model = load_model(
        spec,
        device=device,
        weights=config.weights,
        allow_pickle=config.allow_pickle,
        trust=config.trust,
        normalise=config.normalise,
        expects=config.expects,
        about=config.about,
    )
    said = describe(model)
    config = _sized(config, said)
    images = open_numbered(
        said.names,
        config.data,
        split=config.split,
        source=config.source,
        resize=config.resize,
        crop=config.crop,
        n=None if config.ids is not None else config.n,
        ids=config.ids,
        sample=config.sample,
        seed=config.seed,
        device=device,
    )
    if config.variant is not None:
        needed = needs_calibration(config.variant)
        chosen = calibration_images(config.data, config.source, images.transform, device)[:] if needed else None
        model = make_variant(model, config.variant, chosen)
    surrogates = _surrogates(spec, config)
    attack = find_attack(*named(config.attack, "attack")) if config.attack else None
    card = audit_model(
        model,
        images[:],
        images.labels,
        config.threat,
        attack=attack,
        seed=config.seed,
        effort=Effort().scaled(config.effort),
        surrogates=surrogates,
        classes=len(images.classes),
        train=_training_images(config, device, said.names),
    )
    about = _about(spec, model, images, config, attack, surrogates)
    if config.out is not None:
        with whole_file(Path(config.out)) as file:
            file.write(json.dumps(card.as_dict() | about, indent=1, default=str).encode() + b"\n")
    return card, about, EXIT[card.status]


def _about(
    spec: str, model: nn.Module, images: Images, config: AuditConfig, attack: Attack | None, surrogates: list[str]
) -> dict[str, Any]:
    """What a card is about, for who reads it later."""
    return {
        "model": spec,
        **({} if config.variant is None else {"variant": config.variant}),
        "weights_digest": weights_digest(model) if model.state_dict() else None,
        "data": config.data,
        "data_digest": images.digest,
        "ids": images.ids.tolist(),
        "attack": {named(config.attack, "attack")[0]: asdict(attack)} if attack else None,
        "seed": config.seed,
        "effort": config.effort,
        "surrogates": surrogates,
        "environment": environment(images.labels.device),
    }


def _sized(config: AuditConfig, said: Description) -> AuditConfig:
    """With photographs cropped to the size that the model declares, where nothing else is said."""
    if config.resize is not None or config.crop is not None or said.size is None:
        return config
    crop = crop_for(config.data, said.size, split=config.split)
    return config if crop is None else replace(config, resize=said.resize, crop=list(crop))


def _surrogates(spec: str, config: AuditConfig) -> list[str]:
    if config.surrogates is not None:
        return [config.surrogates] if isinstance(config.surrogates, str) else list(config.surrogates)
    fitting = [f"zoo:{name}" for name in zoo_names() if name.startswith(f"{config.data}/")]
    plain = f"zoo:{config.data}/none"  # undefended: its images move furthest
    return sorted((name for name in fitting if name != spec), key=lambda name: name != plain)[:SURROGATES]


def _training_images(
    config: AuditConfig, device: torch.device, names: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor] | None:
    if not config.train:
        return None
    images = open_numbered(
        names,
        config.data,
        split="train",
        source=config.source,
        resize=config.resize,
        crop=config.crop,
        n=config.train,
        device=device,
    )
    return images[:], images.labels
