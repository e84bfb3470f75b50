"""Handlers of warm-up: start, pause, resume, restart, complete, show."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Annotated

from pydantic import Field

from relayd.control.route import Context, Request, Route, View
from relayd.control.values import Key, ScheduleText
from relayd.errors import Refusal
from relayd.rules.warm_up import LONGEST_DAYS, Schedule
from relayd.store import mailboxes, warm_up
from relayd.store.connection import Connection
from relayd.store.warm_up import WarmUpRecord

SHOWN_DAYS = 14
Limit = Annotated[int, Field(ge=0, le=2_147_483_647)]


class StartWarmUp(Request):
    """Begin, or change how it goes on. `schedule` null: the configuration's. `cap`: never more a day; null: no cap.

    `stage`: days that are behind it already. `used_days_only`: a day counts only if something was sent on it.
    """

    email_address: Key
    schedule: ScheduleText | None = None
    cap: Limit | None = None
    stage: Annotated[int, Field(ge=0, le=LONGEST_DAYS)] = 0
    used_days_only: bool = False


class OneMailbox(Request):
    """A mailbox by its address."""

    email_address: Key


class DayView(View):
    """What became of a mailbox's mail on one day of its own zone, in recipients."""

    day: date
    emails_sent: int
    emails_received: int
    emails_bounced: int
    complaints: int
    warmup_stage: int | None
    daily_limit: int | None


class WarmUpView(View):
    """A mailbox's warm-up. `stage` of `stage_days`: days behind it. `note`: why it was held or lowered."""

    email_address: str
    status: str
    state: str
    stage: int
    stage_days: int
    schedule: str
    is_own_schedule: bool
    used_days_only: bool
    cap: int | None
    daily_send_limit: int | None
    used: int
    note: str | None
    started_at: datetime | None
    paused_at: datetime | None
    completed_at: datetime | None
    bounce_rate: float | None
    spam_rate: float | None
    reply_rate: float | None
    days: list[DayView]


@dataclass(slots=True)
class _Change:
    """A warm-up that is being changed."""

    found: WarmUpRecord
    wanted: WarmUpRecord
    schedule: Schedule


async def show(context: Context, request: OneMailbox) -> WarmUpView:
    """With its latest days."""
    async with context.reading() as connection:
        mailbox = await mailboxes.find(connection, request.email_address)
        return await _view(context, connection, await warm_up.find(connection, mailbox.id))


async def start(context: Context, request: StartWarmUp) -> WarmUpView:
    """From its first day, or from the stage given; of one that warms up already, change what is given."""
    given = {name: getattr(request, name) for name in request.model_fields_set - {"email_address"}}
    async with _changing(context, request.email_address) as change:
        found = change.found
        if found.status == "suspended":
            raise Refusal(
                f"mailbox {found.email_address} is suspended",
                hint=f"relayd mailbox set {found.email_address} --status active",
            )
        is_new = not found.enabled or found.completed_at is not None
        if not is_new and not given:
            raise Refusal(
                f"mailbox {found.email_address} warms up already, at day {found.stage + 1}",
                hint=f"relayd warmup restart {found.email_address} begins anew",
            )
        text = given.get("schedule", None if is_new else found.schedule)
        change.schedule = Schedule.parse(text) if text else context.house.schedule
        stage = given.get("stage", 0 if is_new else found.stage)
        if change.schedule.is_complete(stage):
            raise Refusal(
                f"stage {stage} is beyond the schedule, which takes {change.schedule.days} days",
                hint=f"relayd warmup complete {found.email_address}",
            )
        change.wanted = replace(
            found,
            enabled=True,
            started_at=found.now if is_new else found.started_at,
            completed_at=None,
            paused_at=None if is_new else found.paused_at,
            stage=stage,
            schedule=text,
            used_days_only=given.get("used_days_only", False if is_new else found.used_days_only),
            daily_limit_cap=given.get("cap", None if is_new else found.daily_limit_cap),
            note=None,
            day=None if is_new else found.day,
        )
    return await show(context, OneMailbox(email_address=request.email_address))


async def pause(context: Context, request: OneMailbox) -> WarmUpView:
    """The stage stands still; mail leaves at its limit."""
    async with _changing(context, request.email_address, is_warming=True) as change:
        change.wanted = replace(change.found, paused_at=change.found.paused_at or change.found.now)
    return await show(context, request)


async def resume(context: Context, request: OneMailbox) -> WarmUpView:
    """Days count again from today on."""
    async with _changing(context, request.email_address, is_warming=True) as change:
        if change.found.paused_at is not None:
            change.wanted = replace(change.found, paused_at=None, day=None, note=None)
    return await show(context, request)


async def restart(context: Context, request: OneMailbox) -> WarmUpView:
    """From the first day again, whether it was over or not."""
    async with _changing(context, request.email_address) as change:
        if not change.found.enabled:
            raise Refusal(
                f"mailbox {change.found.email_address} never began to warm up",
                hint=f"relayd warmup start {change.found.email_address}",
            )
        change.wanted = replace(
            change.found,
            started_at=change.found.now,
            completed_at=None,
            paused_at=None,
            stage=0,
            note=None,
            day=None,
        )
    return await show(context, request)


async def complete(context: Context, request: OneMailbox) -> WarmUpView:
    """It is over, with the limit that its schedule ends in."""
    async with _changing(context, request.email_address, is_warming=True) as change:
        change.wanted = replace(
            change.found, completed_at=change.found.now, paused_at=None, stage=change.schedule.days, note=None
        )
    return await show(context, request)


@asynccontextmanager
async def _changing(context: Context, address: str, *, is_warming: bool = False) -> AsyncIterator[_Change]:
    """Store what the caller makes `wanted`, with the limit and the status that follow from it."""
    async with context.writing() as connection:
        mailbox = await mailboxes.find_to_change(connection, address)
        found = await warm_up.find(connection, mailbox.id)
        if is_warming and not mailbox.is_warming:
            over = "has completed its warm-up" if found.completed_at else "does not warm up"
            verb = "restart" if found.completed_at else "start"
            raise Refusal(f"mailbox {found.email_address} {over}", hint=f"relayd warmup {verb} {found.email_address}")
        change = _Change(found, found, _schedule(context, found))
        yield change
        await warm_up.save(connection, _consequent(change))
    context.house.wake()


def _consequent(change: _Change) -> WarmUpRecord:
    wanted = change.wanted
    limit = change.schedule.limit(wanted.stage)
    if wanted.daily_limit_cap is not None:
        limit = min(limit, wanted.daily_limit_cap)
    status = wanted.status
    if status in ("active", "warming"):
        status = "active" if wanted.completed_at else "warming"
    return replace(wanted, daily_send_limit=limit, status=status)


def _schedule(context: Context, found: WarmUpRecord) -> Schedule:
    return Schedule.parse(found.schedule) if found.schedule else context.house.schedule


async def _view(context: Context, connection: Connection, found: WarmUpRecord) -> WarmUpView:
    schedule = _schedule(context, found)
    return WarmUpView(
        email_address=found.email_address,
        status=found.status,
        state=_state(found),
        stage=found.stage,
        stage_days=schedule.days,
        schedule=str(schedule),
        is_own_schedule=found.schedule is not None,
        used_days_only=found.used_days_only,
        cap=found.daily_limit_cap,
        daily_send_limit=found.daily_send_limit,
        used=found.used,
        note=found.note,
        started_at=found.started_at,
        paused_at=found.paused_at,
        completed_at=found.completed_at,
        bounce_rate=found.bounce_rate,
        spam_rate=found.spam_rate,
        reply_rate=found.reply_rate,
        days=[DayView.model_validate(day) for day in await warm_up.days(connection, found.mailbox_id, most=SHOWN_DAYS)],
    )


def _state(found: WarmUpRecord) -> str:
    if not found.enabled:
        return "not begun"
    if found.completed_at:
        return "completed"
    return "paused" if found.paused_at else "warming"


_PATH = "/v1/mailboxes/{email_address}/warmup"
ROUTES = (
    Route("GET", _PATH, show, "Show a mailbox's warm-up", OneMailbox, WarmUpView),
    Route("POST", f"{_PATH}/start", start, "Begin a warm-up or change it", StartWarmUp, WarmUpView),
    Route("POST", f"{_PATH}/pause", pause, "Hold a warm-up's stage", OneMailbox, WarmUpView),
    Route("POST", f"{_PATH}/resume", resume, "Let a warm-up go on", OneMailbox, WarmUpView),
    Route("POST", f"{_PATH}/restart", restart, "Begin a warm-up anew", OneMailbox, WarmUpView),
    Route("POST", f"{_PATH}/complete", complete, "End a warm-up", OneMailbox, WarmUpView),
)
