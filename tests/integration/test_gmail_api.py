"""Mode gmail_api against a local server that speaks Gmail's API, and what looks there for attempts in doubt."""

from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import dkim
import pytest

from relayd.daemon.gmail import Lookers
from relayd.errors import StoreUnavailable
from relayd.mail import headers
from relayd.mail.address import Address
from relayd.mail.dkim import sign
from relayd.mail.dkim_key import SigningKey, generate, load_private
from relayd.mail.dkim_record import Algorithm, record_value
from relayd.mail.envelope import Transmission
from relayd.rules.breaker import Unfit, sign_of
from relayd.rules.doubt import Seen, Sight, Trace, Way
from relayd.rules.outcome import Deferred, Failed, Outcome, Postponed, Scope, Sent, Stage, Uncertain
from relayd.store import attempts, doubts
from relayd.store.pool import Database
from relayd.upstream.dialects import generic
from relayd.upstream.gmail import GmailSettings
from relayd.upstream.gmail_api import GmailApi as Sender
from relayd.upstream.gmail_look import GmailLook
from relayd.upstream.http import Timeouts
from relayd.upstream.table import DIALECTS
from relayd.upstream.tokens import AccountRefused, GrantDead, TokenUnavailable
from tests.builders import claim_all, make_sender, put
from tests.peers.gmail_api import Answer, Cut, GmailApi
from tests.peers.mail import Authority, transmission
from tests.peers.tokens import Tokens

MAILBOX = "noreply@example.com"
MESSAGE_ID = "<one@example.com>"
HEAD = b"From: noreply@example.com\r\nMessage-ID: <one@example.com>\r\nSubject: hello\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def google(authority: Authority) -> Iterator[GmailApi]:
    with GmailApi(authority.server_context("127.0.0.1")) as server:
        yield server


@dataclass
class Desk:
    """A sender, a look, and what was kept of references."""

    settings: GmailSettings
    tokens: Tokens
    references: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    keep_error: StoreUnavailable | None = None
    sender: Sender = field(init=False)
    look: GmailLook = field(init=False)

    def __post_init__(self) -> None:
        self.sender = Sender(self.settings, self._others)
        self.look = GmailLook(self.settings)

    async def deliver(self, *recipients: str, to: str = "one@example.net", **changes: Any) -> Outcome:
        """The one outcome that all share."""
        content = HEAD + (f"To: {to}\r\n".encode() if to else b"") + b"\r\nhello\r\n"
        given = {"content": content, "mailbox": Address.parse(MAILBOX), "keep_reference": self._keep, **changes}
        outcomes = await self.sender.deliver(transmission(*recipients, **given))
        assert len(set(outcomes)) == 1 and len(outcomes) == max(1, len(recipients))
        return outcomes[0]

    async def seen(self) -> Seen:
        return await self.look.by_reference(self.references[-1], MESSAGE_ID, MAILBOX)

    async def _keep(self, reference: str) -> None:
        if self.keep_error is not None:
            raise self.keep_error
        self.references.append(reference)

    async def _others(self, queue_id: UUID) -> Iterable[Address]:
        return [Address.parse(each) for each in self.others]


@pytest.fixture
async def desk(google: GmailApi, authority: Authority) -> AsyncIterator[Desk]:
    tokens = Tokens()
    patient = Timeouts(connect=20, total=20)
    settings = GmailSettings(
        tokens,
        per_mailbox=True,
        api_url=google.url,
        ca_file=authority.file,
        sends_a_second=1000,
        timeouts=patient,
        rules=(*DIALECTS["google"], *generic.RULES),
    )
    desk = Desk(settings, tokens)
    yield desk
    await desk.sender.close()
    await desk.look.close()


async def test_a_draft_is_made_its_name_kept_and_then_it_is_sent(google: GmailApi, desk: Desk) -> None:
    outcome = await desk.deliver("one@example.net")
    assert isinstance(outcome, Sent)
    ((recipients, content),) = google.sent
    assert recipients == ("one@example.net",)
    assert content.partition(b"\r\n")[2] == HEAD + b"To: one@example.net\r\n\r\nhello\r\n", (
        "below our mark, byte for byte"
    )
    assert outcome.provider_message_id in google.account().messages
    assert desk.references[0].startswith("draft:r-")
    assert set(desk.tokens.subjects) == {MAILBOX}, "a service account speaks for the mailbox"
    assert google.drafts == []


async def test_nothing_is_sent_before_its_name_is_durable(google: GmailApi, desk: Desk) -> None:
    desk.keep_error = StoreUnavailable("Postgres is away")
    outcome = await desk.deliver("one@example.net")
    assert isinstance(outcome, Postponed) and outcome.scope is Scope.MESSAGE
    assert "Postgres is away" in outcome.cause.text
    assert google.asked["drafts.send"] == 0 and google.drafts == []


async def test_who_is_not_in_the_header_gets_it_unseen(google: GmailApi, desk: Desk) -> None:
    hidden = [f"hidden{number}@example.net" for number in range(40)]
    await desk.deliver("one@example.net", *hidden)
    ((recipients, content),) = google.sent
    assert set(recipients) == {"one@example.net", *hidden}
    assert b"hidden" not in content
    await desk.deliver("alone@example.net", to="")
    assert google.sent[1][0] == ("alone@example.net",)


async def test_no_signature_of_ours_covers_what_is_added(google: GmailApi, desk: Desk) -> None:
    private, public = generate(Algorithm.RSA_SHA256)
    key = SigningKey("example.com", "s1", Algorithm.RSA_SHA256, load_private(Algorithm.RSA_SHA256, private))
    plain = HEAD + b"To: one@example.net\r\n\r\nhello\r\n"
    signed = sign(plain, headers.scan(plain), [key], signed_at=1_751_360_000) + plain
    await desk.deliver("one@example.net", "two@example.net", content=signed)
    ((_, content),) = google.sent
    assert b"DKIM-Signature" in content
    record = record_value(Algorithm.RSA_SHA256, public).encode()
    assert dkim.verify(content, dnsfunc=lambda name, timeout=5: record)


@pytest.mark.parametrize(
    ("to", "waiting", "kind"),
    [
        ("one@example.net, two@example.net", ["one@example.net", "two@example.net"], Postponed),
        ("one@example.net, two@example.net", ["one@example.net"], Failed),
        ("one@example.net, list@example.org", ["one@example.net", "two@example.net"], Failed),
        ("one@example.net <two@example.net>", [], Failed),
    ],
    ids=["another recipient still waits", "another is done", "no recipient at all", "read in two ways"],
)
async def test_who_is_not_to_get_it_gets_no_copy(
    google: GmailApi, desk: Desk, to: str, waiting: list[str], kind: type
) -> None:
    desk.others = waiting
    outcome = await desk.deliver("one@example.net", to=to)
    assert isinstance(outcome, kind)
    assert isinstance(outcome, Postponed | Failed) and outcome.scope is Scope.MESSAGE
    assert "Gmail's API sends to" in outcome.cause.text
    assert google.asked.total() == 0


async def test_a_large_message_is_uploaded_and_one_too_large_refused(google: GmailApi, desk: Desk) -> None:
    large = HEAD + b"To: one@example.net\r\n\r\n" + b"x" * 78 + b"\r\n" * 300_000
    assert isinstance(await desk.deliver("one@example.net", content=large), Sent)
    assert len(google.sent[0][1]) > len(large)
    outcome = await desk.deliver("one@example.net", content=large + b"y" * 37_000_000)
    assert isinstance(outcome, Failed) and outcome.cause.enhanced == "5.3.4"
    assert google.asked["drafts.create"] == 1


@pytest.mark.parametrize("method", ["drafts.create", "drafts.send"])
async def test_a_token_that_is_not_taken_is_replaced_once(google: GmailApi, desk: Desk, method: str) -> None:
    desk.tokens.waiting = deque(["stale", "token"])
    if method == "drafts.send":
        google.interfere = lambda asked, times: Answer(401) if (asked, times) == (method, 1) else None
        desk.tokens.waiting = deque(["token", "other"])
        google.tokens["other"] = MAILBOX
    assert isinstance(await desk.deliver("one@example.net"), Sent)
    assert len(desk.tokens.refusals) == 1
    google.tokens.clear()
    outcome = await desk.deliver("one@example.net")
    assert isinstance(outcome, Postponed) and outcome.scope is Scope.MAILBOX
    assert len(desk.tokens.refusals) == 2, "one fresh token, and no more"


async def test_a_dead_grant_waits_for_an_operator_and_an_absent_token_for_a_while(google: GmailApi, desk: Desk) -> None:
    desk.tokens.error = GrantDead("the grant was withdrawn; relayd upstream login gmail")
    outcome = await desk.deliver("one@example.net")
    assert isinstance(outcome, Postponed) and outcome.scope is Scope.UPSTREAM
    assert "relayd upstream login gmail" in outcome.cause.text
    assert isinstance(sign_of([outcome]), Unfit), "nothing goes that way until somebody mends it"
    shared = Sender(replace(desk.settings, per_mailbox=False), desk._others)
    (outcome,) = await shared.deliver(transmission("one@example.net", content=HEAD + b"\r\n"))
    assert isinstance(outcome, Postponed) and outcome.scope is Scope.UPSTREAM
    assert desk.tokens.subjects[-1] is None
    desk.tokens.error = AccountRefused("no such user")
    outcome = await desk.deliver("one@example.net")
    assert isinstance(outcome, Postponed) and outcome.scope is Scope.MAILBOX, "the others' mail goes on"
    desk.tokens.error = TokenUnavailable("the token server is away")
    assert isinstance(await desk.deliver("one@example.net"), Deferred)
    assert google.asked.total() == 0


@pytest.mark.parametrize("method", ["drafts.create", "drafts.send"])
@pytest.mark.parametrize(
    ("answer", "kind", "scope", "hold"),
    [
        (Answer(403, "rateLimitExceeded"), Postponed, Scope.MAILBOX, 60),
        (Answer(429, "userRateLimitExceeded", headers={"Retry-After": "77"}), Postponed, Scope.MAILBOX, 77),
        (Answer(403, "insufficientPermissions"), Postponed, Scope.UPSTREAM, 300),
        (Answer(400, "invalidArgument", "Invalid To header"), Failed, Scope.MESSAGE, None),
    ],
    ids=["403 rate", "429 with Retry-After", "403 scopes", "400"],
)
async def test_what_is_refused_leaves_no_draft(
    google: GmailApi, desk: Desk, method: str, answer: Answer, kind: type, scope: Scope, hold: float | None
) -> None:
    google.interfere = lambda asked, times: answer if asked == method else None
    outcome = await desk.deliver("one@example.net")
    assert isinstance(outcome, kind) and isinstance(outcome, Postponed | Failed) and outcome.scope is scope
    assert not isinstance(outcome, Postponed) or outcome.hold_seconds == hold
    assert google.sent == [] and google.drafts == []
    if desk.references:
        assert (await desk.seen()).sight is Sight.NOT_SENT, "a draft that relayd removed is not taken for one sent"


@pytest.mark.parametrize("end", [Answer(408), Answer(500), Answer(503), Cut.BEFORE, Cut.AFTER], ids=str)
async def test_a_lost_reply_leaves_a_doubt_only_once_the_draft_was_to_go(
    google: GmailApi, desk: Desk, end: Answer | Cut
) -> None:
    google.interfere = lambda asked, times: end if (asked, times) == ("drafts.create", 1) else None
    outcome = await desk.deliver("one@example.net")
    assert isinstance(outcome, Deferred) and outcome.scope is Scope.UPSTREAM
    google.interfere = lambda asked, times: end if asked == "drafts.send" else None
    outcome = await desk.deliver("one@example.net")
    assert isinstance(outcome, Uncertain) and outcome.cause.stage is Stage.DOT
    google.interfere = lambda asked, times: None
    seen = await desk.seen()
    assert seen.sight is (Sight.SENT if google.sent else Sight.NOT_SENT)
    assert [each for each in google.account().drafts if each in desk.references[-1]] == [], "it can go no more"


async def test_the_sent_message_proves_that_it_went_and_nothing_else_does(google: GmailApi, desk: Desk) -> None:
    google.replaces_message_id = True
    await desk.deliver("one@example.net")
    seen = await desk.seen()
    assert seen.sight is Sight.SENT and seen.provider_message_id in google.account().messages
    google.interfere = lambda asked, times: Cut.BEFORE if asked == "drafts.send" else None
    await desk.deliver("one@example.net")
    (draft,) = google.drafts
    draft_id = next(iter(google.account().drafts))
    # Another message of ours, of the same thread and name, while the draft itself was taken away by somebody.
    next(iter(google.account().messages.values())).thread_id = draft.thread_id
    del google.account().drafts[draft_id]
    assert (await desk.seen()).sight is Sight.ABSENT


async def test_a_look_that_lost_its_answer_does_not_take_its_own_work_for_a_sent_message(
    google: GmailApi, desk: Desk
) -> None:
    google.interfere = lambda asked, times: Cut.BEFORE if asked == "drafts.send" else None
    await desk.deliver("one@example.net")
    google.interfere = lambda asked, times: Cut.AFTER if asked == "drafts.delete" else None
    first = await desk.seen()
    google.interfere = lambda asked, times: None
    assert google.drafts == []
    assert {first.sight, (await desk.seen()).sight} <= {Sight.ABSENT, Sight.UNREACHABLE}


@pytest.mark.parametrize(
    ("trouble", "sight"),
    [(Answer(503), Sight.UNREACHABLE), (Answer(429), Sight.UNREACHABLE), (Answer(403), Sight.UNKNOWABLE)],
    ids=["503", "429", "403"],
)
async def test_a_look_that_fails_says_whether_another_may_tell(
    google: GmailApi, desk: Desk, trouble: Answer, sight: Sight
) -> None:
    await desk.deliver("one@example.net")
    google.interfere = lambda asked, times: trouble if asked in ("drafts.delete", "messages.list") else None
    assert (await desk.seen()).sight is sight
    assert (await desk.look.by_message_id(MESSAGE_ID, MAILBOX)).sight is sight
    desk.tokens.error = GrantDead("withdrawn")
    assert (await desk.seen()).sight is Sight.UNREACHABLE


TROUBLES = [
    Answer(500),
    Answer(403, "insufficientPermissions"),
    Answer(403, "rateLimitExceeded", "Rate Limit Exceeded"),
    Answer(404, "notFound"),
    Answer(200, body=b"<html>"),
    Answer(200, body=b"[]"),
    Answer(200, body=b'{"messages": "none", "payload": {"headers": 7}, "labelIds": ["SENT"]}'),
    Cut.BEFORE,
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=str)
async def test_a_search_that_fails_is_never_taken_for_absence(
    google: GmailApi, desk: Desk, trouble: Answer | Cut
) -> None:
    async def seen(*, without: str) -> tuple[Sight, Sight]:
        """By Message-ID, and by reference."""
        google.interfere = lambda asked, times: trouble if asked == without else None
        return (await desk.look.by_message_id(MESSAGE_ID, MAILBOX)).sight, (await desk.seen()).sight

    blind = {Sight.UNREACHABLE, Sight.UNKNOWABLE}
    await desk.deliver("one@example.net")
    (sent,) = google.account().messages.values()
    (thread,) = {sent.thread_id}
    sent.thread_id = "elsewhere"  # so that it is searched for, and found only there
    assert await seen(without="nothing") == (Sight.SENT, Sight.SENT)
    assert blind.issuperset(await seen(without="messages.list"))
    if trouble != Answer(404, "notFound"):  # which of one message is an answer
        assert (await seen(without="messages.get"))[1] in blind
        sent.thread_id = thread
        assert (await seen(without="threads.get"))[1] in blind
    google.account().messages.clear()
    assert blind.issuperset(await seen(without="messages.list")), "nor where there is nothing to be found"


async def test_only_gmail_itself_says_that_a_draft_is_gone(google: GmailApi, desk: Desk) -> None:
    google.interfere = lambda asked, times: Cut.BEFORE if asked == "drafts.send" else None
    await desk.deliver("one@example.net")
    portal = Answer(200, body=b"<html>log in here")
    google.interfere = lambda asked, times: portal if asked == "drafts.delete" else None
    assert (await desk.seen()).sight is Sight.UNREACHABLE
    assert len(google.drafts) == 1


async def test_mail_by_smtp_is_found_by_its_message_id_once_the_index_has_it(google: GmailApi, desk: Desk) -> None:
    async def seen(message_id: str = MESSAGE_ID) -> Sight:
        return (await desk.look.by_message_id(message_id, MAILBOX)).sight

    google.is_indexing = False
    google.deliver_by_smtp(MAILBOX, ("one@example.net",), HEAD + b"\r\n")
    assert await seen() is Sight.ABSENT
    google.index()
    assert await seen() is Sight.SENT
    assert await seen("<other@example.com>") is Sight.ABSENT
    assert await seen("<a b@example.com> OR in:sent") is Sight.UNKNOWABLE


@pytest.mark.parametrize("mode", ["gmail_api", "xoauth2", "smtp-relay"])
async def test_a_doubt_is_looked_for_as_its_attempt_went_whatever_the_mode_is_now(
    db: Database, google: GmailApi, desk: Desk, authority: Authority, mode: str
) -> None:
    google.deliver_by_smtp(MAILBOX, ("one@example.net",), HEAD + b"\r\n")
    async with db.connection() as c:
        sender = await make_sender(c)
        await c.execute(
            "UPDATE email_configurations SET provider_type = 'google_workspace', mode = $1, smtp_host = 'localhost',"
            " smtp_port = 587, smtp_tls = 'starttls', api_url = $2, smtp_ca_file = $3",
            mode,
            google.url,
            authority.file,
        )
        await put(c, sender)
        (entry,) = await claim_all(c, sender.upstream_id)
        trace = {entry.entry_id: Trace(Way.MESSAGE_ID, "attempt:1")}
        await attempts.start(c, [(entry, "google_workspace")], lease_seconds=600, traces=trace)
        await c.execute("UPDATE messages SET message_id_header = $1", MESSAGE_ID)
        await c.execute(
            "UPDATE email_queue SET status = 'pending', pending_reason = 'uncertain', claimed_by = NULL,"
            " lease_expires_at = NULL, look_at = relayd_now() - interval '1 second'"
        )
        (doubt,) = await doubts.due(c, most=10)
    lookers = Lookers(db, lambda record: desk.tokens)
    look = (await lookers.current())[sender.upstream_id]
    assert (await look(doubt)).sight is Sight.SENT
    assert (await look(replace(doubt, look_by=Way.REFERENCE, reference=None))).sight is Sight.NOT_SENT, (
        "nothing was kept of it"
    )
    assert (await look(replace(doubt, look_by=None))).sight is Sight.UNKNOWABLE
    await lookers.close()


async def test_a_mailbox_sends_no_faster_than_it_may(google: GmailApi, desk: Desk) -> None:
    now, waits = 100.0, []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    sender = Sender(replace(desk.settings, sends_a_second=2), desk._others, clock=lambda: now, sleep=sleep)
    one: Transmission = transmission("one@example.net", content=HEAD + b"\r\n", mailbox=Address.parse(MAILBOX))
    for _ in range(3):
        await sender.deliver(one)
    await sender.deliver(replace(one, mailbox=Address.parse("other@example.com")))
    await sender.close()
    assert waits == [0.5, 1.0]
