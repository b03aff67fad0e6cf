"""Cases of authors who had not seen the audit, its tests or its table."""

from __future__ import annotations

from tests.helpers.audit_cases.strangers import deployments, evaluations, models, networks

USED = (models, evaluations, networks, deployments)  # checks were then changed with them
UNUSED: tuple[object, ...] = ()  # measured once, and no check was changed with them
