"""Cases of authors who had not seen the audit, its tests or its table."""

from __future__ import annotations

from tests.helpers.audit_cases.strangers import (
    deployments,
    evaluations,
    later_deployments,
    later_evaluations,
    later_models,
    later_networks,
    models,
    networks,
)

USED = (models, evaluations, networks, deployments)  # checks were then changed with them
UNUSED = (later_models, later_evaluations, later_networks, later_deployments)  # and with these none was
