"""Routes of plans."""

from __future__ import annotations

from typing import Annotated, Literal

from litestar import get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter

from keyturn.access.caller import Credentials
from keyturn.http.edge import Given, Page, Tagged, tagged
from keyturn.keys.plans import PlanService
from keyturn.wire.plans import CreatePlan, PlanDetail, PlanEffect, PlanPage, RetirePlan, UpdatePlan

# What a request without any body asks for.
RETIRE = RetirePlan()


@post("/api/v1/plans", operation_id="createPlan", tags=["plans"])
async def create_plan(
    data: JSONBody[CreatePlan],
    credentials: Given[Credentials],
    plans: Given[PlanService],
    idempotency: Given[str | None],
) -> Tagged[PlanDetail]:
    """Create a plan: scopes, limits, quotas and restrictions under one name."""
    made = await plans.create(credentials, data, idempotency=idempotency)
    return tagged(made, made.revision)


@get("/api/v1/plans", operation_id="listPlans", tags=["plans"])
async def list_plans(
    credentials: Given[Credentials],
    plans: Given[PlanService],
    page: Given[Page],
    plan_state: Annotated[
        Literal["active", "retired"] | None, QueryParameter(name="state", description="Only plans in this state.")
    ] = None,
) -> PlanPage:
    """List plans, oldest first."""
    return await plans.list(credentials, state=plan_state, cursor=page.cursor, limit=page.limit)


@get("/api/v1/plans/{name:str}", operation_id="readPlan", tags=["plans"])
async def read_plan(
    name: FromPath[str], credentials: Given[Credentials], plans: Given[PlanService]
) -> Tagged[PlanDetail]:
    """Show a plan, and how much was put on it."""
    found = await plans.show(credentials, name)
    return tagged(found, found.revision)


@patch("/api/v1/plans/{name:str}", operation_id="updatePlan", tags=["plans"])
async def update_plan(
    name: FromPath[str],
    data: JSONBody[UpdatePlan],
    credentials: Given[Credentials],
    plans: Given[PlanService],
    if_match: Given[int | None],
) -> Tagged[PlanEffect]:
    """Change a plan for every key on it.

    Limits and quotas given take the place of all before.
    """
    changed = await plans.update(credentials, name, data, if_match=if_match)
    return tagged(changed, changed.revision)


@post("/api/v1/plans/{name:str}/retire", operation_id="retirePlan", tags=["plans"], status_code=200)
async def retire_plan(
    name: FromPath[str],
    credentials: Given[Credentials],
    plans: Given[PlanService],
    if_match: Given[int | None],
    data: JSONBody[RetirePlan] = RETIRE,
) -> Tagged[PlanEffect]:
    """Retire a plan for good.

    What is on it moves to the plan `move_to`.  Without one, it is refused while a key, an owner or a keyspace is on it.
    """
    changed = await plans.retire(credentials, name, data, if_match=if_match)
    return tagged(changed, changed.revision)


ROUTES = (create_plan, list_plans, read_plan, update_plan, retire_plan)
