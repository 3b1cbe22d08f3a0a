"""What `aimctl get slo` and `aimctl describe slo` ask for: models that have objectives."""

from __future__ import annotations

from typing import Any

from aimd.ctl.client import ApiClient
from aimd.ctl.fields import items
from aimd.ctl.session import segment
from aimd.ctl.slo_columns import has_objective
from aimd.errors import NotFoundError


def models_with_objectives(client: ApiClient) -> dict[str, Any]:
    """The answer of /v1/models without those that have none. Raises like ApiClient.get."""
    answer = client.get("/v1/models")
    return answer | {"models": [model for model in items(answer, "models") if has_objective(model)]}


def model_with_objective(client: ApiClient, name: str) -> dict[str, Any]:
    """The model of this name; raises NotFoundError if its claim has no objective, else like ApiClient.get."""
    model = client.get(f"/v1/models/{segment(name)}")
    if not has_objective(model):
        raise NotFoundError(
            f"model {name!r} has no objective, expected one whose claim has",
            hint="aimctl claim --slo-latency S --slo-objective R sets it; aimctl describe model shows the rest",
        )
    return model
