"""Try an upstream: every step as a delivery takes it, with its time, its result and what mends it."""

from typing import Annotated

from pydantic import Field

from relayd.control.route import Context, Request, Route, View
from relayd.control.running_trials import RunningTrial
from relayd.control.values import EmailAddress, Key
from relayd.errors import BadValue, Refusal
from relayd.mail.address import Address
from relayd.seal import SealError
from relayd.store import upstreams
from relayd.store.connection import Connection
from relayd.store.upstreams import UpstreamRecord
from relayd.upstream.steps import Probe, Progress, Trial, try_out

# As long as a delivery may take, and a little more: a trial that gives up sooner finds faults that are none.
TEST_SECONDS = 1200.0
# Less than the command line waits for an answer.
LONGEST_WAIT_SECONDS = 50.0

WaitSeconds = Annotated[float, Field(ge=0, le=LONGEST_WAIT_SECONDS)]


class TryUpstream(Request):
    """Without `sender`: the upstream's own sender address, else one of its mailboxes."""

    name: Key
    to: EmailAddress
    sender: EmailAddress | None = None
    send: bool = Field(default=False, description="Send a small message; without it the trial ends after RCPT")
    wait_seconds: WaitSeconds = LONGEST_WAIT_SECONDS


class AwaitTrial(Request):
    """A trial that had not ended."""

    name: Key
    trial: Annotated[str, Field(max_length=100)]
    wait_seconds: WaitSeconds = LONGEST_WAIT_SECONDS


class StepView(View):
    """One step. `cure`: what to change, where it failed; `warning`: what is wrong although it works."""

    name: str
    is_ok: bool
    seconds: float
    result: str
    details: list[str]
    cure: str | None
    warning: str | None


class WaitingView(View):
    """A step that has not ended, and how long it takes so far."""

    step: str
    seconds: float


class TrialView(View):
    """The steps in their order; the last one failed, or none did.

    Not finished within the time that was waited: `waiting` says for what, and `trial` is how to ask again.
    """

    name: str
    to: str
    sender: str
    is_ok: bool
    steps: list[StepView]
    is_finished: bool = True
    waiting: WaitingView | None = None
    trial: str | None = None


async def try_upstream(context: Context, request: TryUpstream) -> TrialView:
    """On a connection of its own. A trial that ends well marks the upstream as verified."""
    if context.house.probe_of is None:
        raise Refusal("this relayd cannot try upstreams")
    async with context.reading() as connection:
        upstream = await upstreams.find(connection, request.name)
        sender = request.sender or await _usual_sender(connection, upstream)
    try:
        probe = context.house.probe_of(upstream)
    except SealError as error:
        raise Refusal(f"upstream {upstream.name} cannot be used: {error}", hint="give its secrets anew") from None
    trial = Trial(upstream.name, Address.parse(sender), Address.parse(request.to), request.send)
    trials = context.house.trials
    progress = Progress(trials.clock)
    work = _try(context, upstream, probe, trial, progress)
    return await _told(context, trials.begin(upstream.name, request.to, sender, progress, work), request.wait_seconds)


async def await_trial(context: Context, request: AwaitTrial) -> TrialView:
    """What has come of it since."""
    return await _told(context, context.house.trials.find(request.trial, request.name), request.wait_seconds)


async def _try(context: Context, upstream: UpstreamRecord, probe: Probe, trial: Trial, progress: Progress) -> None:
    await try_out(probe, trial, progress, seconds=TEST_SECONDS)
    if _is_ok(progress) and not upstream.is_verified:
        async with context.writing() as connection:
            await upstreams.mark_verified(connection, upstream)


async def _told(context: Context, running: RunningTrial, seconds: float) -> TrialView:
    is_finished = await running.wait(seconds)
    if is_finished:
        context.house.trials.forget(running)
        running.task.result()
    waiting = running.progress.under_way
    return TrialView(
        name=running.upstream,
        to=running.to,
        sender=running.sender,
        is_ok=is_finished and _is_ok(running.progress),
        steps=[StepView.model_validate(step) for step in running.progress.steps],
        is_finished=is_finished,
        waiting=WaitingView(step=waiting[0], seconds=waiting[1]) if waiting and not is_finished else None,
        trial=None if is_finished else running.id,
    )


def _is_ok(progress: Progress) -> bool:
    return bool(progress.steps) and all(step.is_ok for step in progress.steps)


async def _usual_sender(connection: Connection, upstream: UpstreamRecord) -> str:
    sender = upstream.sender_address or await upstreams.some_sender(connection, upstream)
    if sender is None:
        raise BadValue(f"nobody sends through upstream {upstream.name} yet", hint="say who does: --from ADDRESS")
    return sender


ROUTES = (
    Route("POST", "/v1/upstreams/{name}/test", try_upstream, "Try an upstream", TryUpstream, TrialView),
    Route("GET", "/v1/upstreams/{name}/test/{trial}", await_trial, "Wait for a trial to end", AwaitTrial, TrialView),
)
