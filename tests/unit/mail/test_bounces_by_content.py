"""A bounce whose sender is no classic daemon is known by its content; a person who quotes one is still a person."""

import pytest

from relayd.mail.report import Bounce
from relayd.mail.report_filter import Interest, interest
from relayd.mail.report_reader import read

ORIGINAL = "Return-Path: <shop@a.test>\nMessage-ID: <1@a.test>\nDate: x\nFrom: shop@a.test\nTo: u@b.test\nSubject: Hi\n"


def _message(sender: str, subject: str, text: str, *fields: str, returns: bool = True) -> bytes:
    top = [f"From: {sender}", f"Subject: {subject}", *fields, "Content-Type: multipart/mixed; boundary=b"]
    part = f"--b\nContent-Type: message/rfc822\n\n{ORIGINAL}\nHello\n" if returns else ""
    return ("\n".join(top) + f"\n\n--b\n\n{text}\n{part}--b--\n").encode()


ANSWER = "In-Reply-To: <1@a.test>"
BOUNCES = {
    "japanese": ("no-reply@b.test", "メールエラー通知", "u@b.test 宛のメールは配信できませんでした。", ()),
    "japanese, an answer": ("noreply@b.test", "エラー通知", "550 5.1.1 <u@b.test> unknown", (ANSWER,)),
    "korean": ("notification@b.test", "발송 실패 안내", "u@b.test 550 5.1.1 user unknown", ()),
    "vietnamese": ("no_reply@b.test", "Không gửi được thư", "u@b.test: 550 5.1.1 user unknown", ()),
    "thai": ("noreply@b.test", "ส่งไม่สำเร็จ", "u@b.test: 550 5.1.1 user unknown", ()),
    "arabic": ("donotreply@b.test", "فشل التسليم", "u@b.test: 550 5.1.1 user unknown", ()),
    "hebrew": ("noreply@b.test", "מסירה נכשלה", "u@b.test: 550 5.1.1 user unknown", ()),
    "a subject in no list": ("service@b.test", "Zzyzx", "550 5.1.1 <u@b.test>: x", ("Return-Path: <>",)),
    "post_master": ("post_master@b.test", "Your mail", "There is no such user here", (ANSWER,)),
    "post_master, behind Re": ("post_master@b.test", "Re: Hi", "no such user here", (ANSWER,)),
    "post-master": ("Post-Master@b.test", "Problem", "u@b.test: user unknown", (ANSWER,)),
    "postmaster with a suffix": ("postmaster-eu@b.test", "Problem", "u@b.test: user unknown", (ANSWER,)),
    "mailer_daemon": ("mailer_daemon@b.test", "Problem", "u@b.test: user unknown", (ANSWER,)),
}


@pytest.mark.parametrize(("sender", "subject", "text", "fields"), BOUNCES.values(), ids=BOUNCES)
def test_a_bounce_is_known_by_its_content(sender: str, subject: str, text: str, fields: tuple[str, ...]) -> None:
    content = _message(sender, subject, text, *fields)
    found = read(content)
    assert isinstance(found, Bounce)
    assert [each.address for each in found.recipients] == ["u@b.test"]
    if subject != "Zzyzx":
        assert interest(content.partition(b"\n\n")[0] + b"\n\n")[0] is Interest.REPORT


QUOTED = "I see this:\n> 550 5.1.1 <u@b.test>: User unknown\n> Your message could not be delivered\n"
WROTE = "Please look.\n\nOn Mon, 5 Jan 2026 Shop wrote:\nYour message could not be delivered: 550 5.1.1 User unknown\n"
PERSONS = {
    "an answer that quotes a bounce": ("jane@b.test", "Re: Undeliverable: Hi", QUOTED, (ANSWER,)),
    "an answer without In-Reply-To": ("jane@b.test", "AW: Undelivered Mail Returned to Sender", QUOTED, ()),
    "an answer in the words of a bounce": ("jane@b.test", "Re: Hi", "user unknown, could not be delivered", (ANSWER,)),
    "a person called mail": ("mail@b.test", "Re: Your order", QUOTED, (ANSWER,)),
    "a person called root": ("root@b.test", "Re: Your order", "My parcel could not be delivered", (ANSWER,)),
    "an administrator": ("administrator@b.test", "SV: Your order", WROTE, (ANSWER,)),
    "a postmaster who is a person": ("postmaster@b.test", "Re: Your order", "Thank you\n" + QUOTED, (ANSWER,)),
    "a postmaster below whose words stands a bounce": ("postmaster@b.test", "Re: Your order", WROTE, (ANSWER,)),
    "a mail without the message": ("jane@b.test", "Rücksendung", "Hi, I could not send it", ()),
}


@pytest.mark.parametrize(("sender", "subject", "text", "fields"), PERSONS.values(), ids=PERSONS)
@pytest.mark.parametrize("returns", [True, False])
def test_a_person_who_quotes_a_bounce_is_a_person(
    sender: str, subject: str, text: str, fields: tuple[str, ...], returns: bool
) -> None:
    if "Rücksendung" in subject and returns:
        pytest.skip("returns nothing")
    assert not isinstance(read(_message(sender, subject, text, *fields, returns=returns)), Bounce)


@pytest.mark.parametrize(
    "header",
    [
        "From: jane@b.test\nSubject: Rücksendung\n",
        "From: jane@b.test\nSubject: Re: Undeliverable\n",
        "From: no-reply@b.test\nSubject: News of the week\n",
        "From: notifications@b.test\nSubject: Re: Undeliverable\n",
        "From: jane@b.test\nSubject: [AUTO GENERATED] x\nIn-Reply-To: <1@a.test>\n",
    ],
)
def test_ordinary_mail_is_not_fetched(header: str) -> None:
    assert interest(header.encode())[0] is Interest.NONE


@pytest.mark.parametrize(
    "header",
    ["From: no-reply@sns.amazonaws.com\nSubject: x\n", "From: x@b.test\nSubject: AWS Notification Message\n",
     "From: x@b.test\nContent-Type: application/json\n"],
)  # fmt: skip
def test_a_notification_by_json_is_fetched(header: str) -> None:
    assert interest(header.encode())[0] is Interest.REPORT
