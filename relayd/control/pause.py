"""Handlers of `pause` and `resume`: everything, a mailbox, an upstream."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from relayd.control.route import Context, Nothing, Request, Route, View
from relayd.control.values import Key
from relayd.store import pause
from relayd.store.pause import PauseChange

Reason = Annotated[str, Field(min_length=1, max_length=500, description="Shown to whoever asks why mail waits")]
_NO_REASON = "no reason given"


class PauseAll(Request):
    """Stop sending altogether."""

    reason: Reason = _NO_REASON


class PauseOne(Request):
    """Stop one mailbox or upstream."""

    name: Key
    reason: Reason = _NO_REASON


class ResumeOne(Request):
    """Let one mailbox or upstream go on."""

    name: Key


class PauseView(View):
    """How it stands now, and whether this call made it so."""

    changed: bool
    paused: bool
    since: datetime | None
    reason: str | None


async def pause_everything(context: Context, request: PauseAll) -> PauseView:
    """Nothing is claimed until it is resumed; mail is still taken."""
    async with context.writing() as connection:
        return _view(await pause.pause_all(connection, request.reason))


async def resume_everything(context: Context, request: Nothing) -> PauseView:
    """What is due goes at once."""
    async with context.writing() as connection:
        change = await pause.resume_all(connection)
    context.house.wake()
    return _view(change)


async def pause_mailbox(context: Context, request: PauseOne) -> PauseView:
    """Nothing leaves it; mail is still taken."""
    async with context.writing() as connection:
        return _view(await pause.pause_mailbox(connection, request.name, request.reason))


async def resume_mailbox(context: Context, request: ResumeOne) -> PauseView:
    """What is due goes at once."""
    async with context.writing() as connection:
        change = await pause.resume_mailbox(connection, request.name)
    context.house.wake()
    return _view(change)


async def pause_upstream(context: Context, request: PauseOne) -> PauseView:
    """Nothing goes to it."""
    async with context.writing() as connection:
        return _view(await pause.pause_upstream(connection, request.name, request.reason))


async def resume_upstream(context: Context, request: ResumeOne) -> PauseView:
    """What is due goes at once."""
    async with context.writing() as connection:
        change = await pause.resume_upstream(connection, request.name)
    context.house.wake()
    return _view(change)


def _view(change: PauseChange) -> PauseView:
    return PauseView.model_validate(change)


ROUTES = (
    Route("POST", "/v1/pause", pause_everything, "Pause everything", PauseAll, PauseView),
    Route("POST", "/v1/resume", resume_everything, "Resume everything", Nothing, PauseView),
    Route("POST", "/v1/mailboxes/{name}/pause", pause_mailbox, "Pause a mailbox", PauseOne, PauseView),
    Route("POST", "/v1/mailboxes/{name}/resume", resume_mailbox, "Resume a mailbox", ResumeOne, PauseView),
    Route("POST", "/v1/upstreams/{name}/pause", pause_upstream, "Pause an upstream", PauseOne, PauseView),
    Route("POST", "/v1/upstreams/{name}/resume", resume_upstream, "Resume an upstream", ResumeOne, PauseView),
)
