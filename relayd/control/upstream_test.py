"""Try an upstream: every step as a delivery takes it, with its time, its result and what mends it."""

import time

from pydantic import Field

from relayd.control.route import Context, Request, Route, View
from relayd.control.values import EmailAddress, Key
from relayd.errors import BadValue, Refusal
from relayd.mail.address import Address
from relayd.seal import SealError
from relayd.store import upstreams
from relayd.store.connection import Connection
from relayd.store.upstreams import UpstreamRecord
from relayd.upstream.steps import Trial, try_out

# Less than the command line waits for an answer.
TEST_SECONDS = 50.0


class TryUpstream(Request):
    """Without `sender`: the upstream's own sender address, else one of its mailboxes."""

    name: Key
    to: EmailAddress
    sender: EmailAddress | None = None
    send: bool = Field(default=False, description="Send a small message; without it the trial ends after RCPT")


class StepView(View):
    """One step. `cure` says what to change, where it failed."""

    name: str
    is_ok: bool
    seconds: float
    result: str
    details: list[str]
    cure: str | None


class TrialView(View):
    """The steps in their order; the last one failed, or none did."""

    name: str
    to: str
    sender: str
    is_ok: bool
    steps: list[StepView]


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
    steps = await try_out(probe, trial, seconds=TEST_SECONDS, clock=time.monotonic)
    is_ok = bool(steps) and all(step.is_ok for step in steps)
    if is_ok and not upstream.is_verified:
        async with context.writing() as connection:
            await upstreams.mark_verified(connection, upstream)
    told = [StepView.model_validate(step) for step in steps]
    return TrialView(name=upstream.name, to=request.to, sender=sender, is_ok=is_ok, steps=told)


async def _usual_sender(connection: Connection, upstream: UpstreamRecord) -> str:
    sender = upstream.sender_address or await upstreams.some_sender(connection, upstream)
    if sender is None:
        raise BadValue(f"nobody sends through upstream {upstream.name} yet", hint="say who does: --from ADDRESS")
    return sender


ROUTES = (Route("POST", "/v1/upstreams/{name}/test", try_upstream, "Try an upstream", TryUpstream, TrialView),)
