"""Handlers that look ahead: a mailbox's days to come as they stand, or as another warm-up would make them."""

from dataclasses import replace
from datetime import date, datetime
from typing import Annotated

from pydantic import Field

from relayd.control.route import Context, Request, Route, View
from relayd.control.values import Key, ScheduleText
from relayd.rules.budget import Budget, Growth
from relayd.rules.budgets import BudgetKind
from relayd.rules.forecast import PlannedDay, forecast, supposing
from relayd.rules.warm_up import Schedule
from relayd.store import mailboxes, outlook, warm_up
from relayd.store.outlook import LaneOutlook, Reach

LONGEST_DAYS = 366
# Waiting entries counted in each lane, and other lanes that share a limit.
REACH = Reach(entries=1_000_000, rivals=100, rival_entries=10_000)

Days = Annotated[int, Field(ge=1, le=LONGEST_DAYS)]


class Forecast(Request):
    """So many days from today on, today included."""

    email_address: Key
    days: Days = 14


class Simulate(Request):
    """`schedule`: another than its own."""

    email_address: Key
    schedule: ScheduleText | None = None
    days: Days = 31


class ForecastDayView(View):
    """A day of the mailbox's zone, in recipients; `limit` null: none.

    `joins`: scheduled for this day; `waiting`: left over at its end; `held_by`: the limit that these then wait for.
    """

    day: date
    limit: int | None
    leaves: int
    joins: int
    waiting: int
    held_by: str | None


class ForecastView(View):
    """If nothing new comes and health is good. `done_on`: null if something still waits after the days asked.

    `held`: nothing leaves until somebody acts, the days are those that would follow; `is_earliest`: more waits, or more
    others wait for the same limits, than was counted.
    """

    email_address: str
    now: datetime
    time_zone: str
    backlog: int
    scheduled: int
    used: int
    held: bool
    is_earliest: bool
    done_on: date | None
    items: list[ForecastDayView]


class SimulatedDayView(View):
    """A day to come; counts are recipients."""

    day: int
    limit: int
    leaves: int
    total: int
    waiting: int


class Simulation(View):
    """What the schedule would do to today's backlog. `done_on_day`: null if it is not done within the days asked."""

    email_address: str
    schedule: str
    backlog: int
    done_on_day: int | None
    items: list[SimulatedDayView]


async def forecast_mailbox(context: Context, request: Forecast) -> ForecastView:
    """By every limit that its mail has to fit. Changes nothing."""
    async with context.reading() as connection:
        mailbox = await mailboxes.find(connection, request.email_address)
        lanes = await outlook.of_mailbox(connection, mailbox.id, context.house.terms, REACH)
    budgets, daily = _budgets(lanes)
    planned = _plan(lanes, budgets, daily, days=request.days)
    return ForecastView(
        email_address=mailbox.email_address,
        now=lanes[0].now,
        time_zone=daily.time_zone,
        backlog=sum(lane.line.waiting for lane in lanes),
        scheduled=sum(units for lane in lanes for _, units in lane.line.arrivals),
        used=daily.used,
        held=lanes[0].is_held,
        is_earliest=any(lane.is_capped for lane in lanes),
        done_on=_done(planned),
        items=[
            ForecastDayView(
                day=day.day,
                limit=day.limit,
                leaves=day.leaves,
                joins=day.joins,
                waiting=day.waiting,
                held_by=budgets[day.held_by].name if day.held_by is not None else None,
            )
            for day in planned
        ],
    )


async def simulate_warm_up(context: Context, request: Simulate) -> Simulation:
    """The same, were the mailbox to grow by that schedule. Changes nothing."""
    async with context.reading() as connection:
        mailbox = await mailboxes.find(connection, request.email_address)
        found = await warm_up.find(connection, mailbox.id)
        lanes = await outlook.of_mailbox(connection, mailbox.id, context.house.terms, REACH)
    text = request.schedule or found.schedule
    schedule = Schedule.parse(text) if text else context.house.schedule
    budgets, daily = _budgets(lanes)
    growth = Growth(schedule, found.stage if found.enabled else 0, found.daily_limit_cap, _reserve(daily))
    own = {id: supposing(budgets[id], growth) for id in lanes[0].line.budget_ids}
    planned = _plan(lanes, {**budgets, **own}, own[daily.id], days=request.days)
    done = _done(planned)
    return Simulation(
        email_address=mailbox.email_address,
        schedule=str(schedule),
        backlog=sum(lane.line.waiting for lane in lanes),
        done_on_day=(done - planned[0].day).days + 1 if done else None,
        items=[
            SimulatedDayView(day=number, limit=day.limit or 0, leaves=day.leaves, total=day.total, waiting=day.waiting)
            for number, day in enumerate(planned, 1)
        ],
    )


def _budgets(lanes: list[LaneOutlook]) -> tuple[dict[int, Budget], Budget]:
    """All of them, and the mailbox's own daily one."""
    budgets = {id: budget for lane in lanes for id, budget in lane.budgets.items()}
    own = [budgets[id] for id in lanes[0].line.budget_ids]
    return budgets, next(budget for budget in own if budget.kind is BudgetKind.MAILBOX_DAY)


def _plan(lanes: list[LaneOutlook], budgets: dict[int, Budget], daily: Budget, *, days: int) -> list[PlannedDay]:
    lines = [lane.line for lane in lanes]
    if lanes[0].is_held:
        # As if it were resumed now: the limits are what is asked for.
        lines = [replace(line, not_before=None) for line in lines]
    ids = {line.lane_id for line in lines}
    rivals = [
        [
            *(other for other in lines if other is not line),
            *(rival for rival in lane.rivals if rival.lane_id not in ids),
        ]
        for lane, line in zip(lanes, lines, strict=True)
    ]
    return forecast(lines, rivals, budgets, daily, now=lanes[0].now, days=days)


def _done(planned: list[PlannedDay]) -> date | None:
    last = next((day for day in reversed(planned) if day.waiting or day.joins), None)
    if last is None:
        return planned[0].day
    if last.waiting:
        return next((day.day for day in planned if day.day > last.day), None)
    return last.day


def _reserve(daily: Budget) -> int:
    if not daily.unit_limit or daily.bulk_limit is None:
        return 0
    return round(100 * (daily.unit_limit - daily.bulk_limit) / daily.unit_limit)


_PATH = "/v1/mailboxes/{email_address}"
ROUTES = (
    Route("GET", f"{_PATH}/forecast", forecast_mailbox, "A mailbox's days to come", Forecast, ForecastView),
    Route("GET", f"{_PATH}/warmup/simulation", simulate_warm_up, "What a schedule would do", Simulate, Simulation),
)
