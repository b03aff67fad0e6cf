"""Cases of authors who had not seen the audit, its tests or its table."""

from __future__ import annotations

from tests.helpers.audit_cases.strangers import (
    deployments,
    evaluations,
    last_deployments,
    last_networks,
    later_deployments,
    later_evaluations,
    later_models,
    later_networks,
    models,
    networks,
)

# checks were changed with what the first found
USED = (models, evaluations, networks, deployments, later_networks, later_deployments)
# and with none of these
UNUSED = (later_models, later_evaluations, last_networks, last_deployments)
