"""Cases of authors who had not seen the audit, its tests or its table; each name tosses a coin for its half."""

from __future__ import annotations

import hashlib

from tests.helpers.audit_cases.strangers import deployments, evaluations, models, networks

MODULES = (models, evaluations, networks, deployments)


def is_seen(name: str) -> bool:
    """Whether a case is of the half that was measured first and that checks were then changed for."""
    return hashlib.sha256(name.encode()).digest()[0] % 2 == 0
