"""Which line an event makes: its level, its name, its fields in the order in which it declares them, queue id first."""

import logging
import re
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import assert_never, get_args

import structlog

from relayd.rules.control_events import SecretsResealed, TierRefused
from relayd.rules.events import Event
from relayd.rules.grant_events import GrantDied
from relayd.rules.relay_events import (
    Accepted,
    AddressesSuppressed,
    AttemptEnded,
    AttemptStarted,
    BatchCommitted,
    Bounced,
    BreakerClosed,
    BreakerOpened,
    ClaimsInDoubt,
    ClaimsReturned,
    LimitReached,
    LogLinesDropped,
    RecipientDropped,
    Rejected,
    StoreLost,
    WorkerDied,
)
from relayd.rules.report_events import BouncedLater, Complained, InboxFailed, Replied, ReportRead
from relayd.rules.session_events import (
    Authenticated,
    AuthenticationFailed,
    PeerLinesSummed,
    RefusalsSummed,
    Refused,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    TlsFailed,
)
from relayd.rules.upkeep_events import (
    DoubtLookedInto,
    LookResult,
    MailboxPaused,
    MailRerouted,
    PoolMailMoved,
    WarmUpTurned,
)


def record(event: Event) -> None:
    """Write the event's line, if its level is on. Never raises for want of a place to write."""
    level = level_of(event)
    # `configure` gives this logger the same level, and it is quicker asked than structlog's.
    if logging.getLogger("relayd").isEnabledFor(level):
        name, keys = _shapes()[type(event)]
        structlog.get_logger().log(level, name, **{key: getattr(event, key) for key in keys})


def level_of(event: Event) -> int:
    """One of logging's levels. Warnings are what an operator may want to look at, not what is broken."""
    match event:
        case SessionOpened() | SessionClosed() | Authenticated() | BatchCommitted() | AttemptStarted():
            return logging.DEBUG
        case AttemptEnded(outcome="failed" | "uncertain"):
            return logging.WARNING
        case Accepted() | Bounced() | AttemptEnded() | ClaimsReturned():
            return logging.INFO
        case RecipientDropped() | AddressesSuppressed():
            return logging.INFO
        case Refused(number=int()):
            return logging.DEBUG
        case RefusalsSummed() | PeerLinesSummed():
            return logging.WARNING
        case Rejected() | Refused() | SessionRefused() | TlsFailed() | AuthenticationFailed():
            return logging.WARNING
        case ClaimsInDoubt() | StoreLost() | LogLinesDropped():
            return logging.WARNING
        case WarmUpTurned():
            return logging.INFO if event.note is None else logging.WARNING
        case MailboxPaused():
            return logging.WARNING
        case TierRefused():
            return logging.WARNING
        case SecretsResealed():
            return logging.INFO if event.closed == 0 else logging.WARNING
        case BouncedLater() | Replied() | ReportRead():
            return logging.INFO
        case Complained() | InboxFailed():
            return logging.WARNING
        case DoubtLookedInto(conclusion=LookResult.HELD | LookResult.FAILED):
            return logging.WARNING
        case DoubtLookedInto():
            return logging.INFO
        case LimitReached() | PoolMailMoved() | MailRerouted() | BreakerClosed():
            return logging.INFO
        case BreakerOpened():
            return logging.WARNING
        case WorkerDied() | GrantDied():
            return logging.ERROR
        case _:
            assert_never(event)


@cache
def _shapes() -> Mapping[type, tuple[str, tuple[str, ...]]]:
    """Name and keys of each kind of event; worked out once, since asking a dataclass for its fields takes long."""
    return {kind: (_name(kind), _keys(kind)) for kind in get_args(Event)}


def _name(kind: type) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def _keys(kind: type) -> tuple[str, ...]:
    return tuple(sorted((each.name for each in fields(kind)), key=lambda key: key != "queue_id"))
