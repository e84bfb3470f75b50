"""A subject tells a machine's answer where the header does not; a mailing list makes no machine of a person."""

import base64

import pytest

from relayd.mail.auto_reply import says_automatic
from relayd.mail.report import AutoReply, Reply
from relayd.mail.report_filter import Interest, interest
from relayd.mail.report_reader import read

MACHINES = {
    "tag": "[AUTO GENERATED] x|[Auto-Generated] Your order|(Automatic reply) x|"
    "Re: [AUTO GENERATED] x|【自動返信】ご注文",
    "english": "Re: Out of office|Out of Office: Your order|I'm on vacation until Monday|Re: I am on holiday|"
    "FW: Re: Automatic reply: x|Joe Doe is out of the office.|Autoreply",
    "german": "Eingangsbestätigung|Eingangsbestätigung Ihrer Anfrage|AW: Eingangsbestätigung|AW: Abwesenheitsnotiz|"
    "Automatische Antwort: Ihre Bestellung|Ich bin im Urlaub",
    "swedish": "SV: Frånvaro|Frånvaromeddelande|Jag är på semester|Autosvar: Din beställning|Automatiskt svar",
    "arabic": "رد تلقائي: طلبك|خارج المكتب|أنا في إجازة|Re: رد آلي|إشعار استلام|\u200fرد تلقائي",
    "hebrew": "תשובה אוטומטית: ההזמנה|מענה אוטומטי|אני בחופשה|Re: מחוץ למשרד|אישור קבלה",
    "thai": "ตอบกลับอัตโนมัติ: คำสั่งซื้อ|การตอบกลับอัตโนมัติ|ไม่อยู่ที่สำนักงาน|ลาพักร้อน|Re: ข้อความอัตโนมัติ",
    "vietnamese": "Trả lời tự động: Đơn hàng|Tự động trả lời|Tôi đang nghỉ phép|Re: Vắng mặt|Thư trả lời tự động",
    "others": "Réponse automatique : x|Respuesta automática|Automatisch antwoord|Poissaolo|Otomatik yanıt|"
    "Автоответ|自动回复|부재중|Jestem na urlopie|Fravær",
}
PERSONS = (
    "Re: Vacation rental 4711",
    "Re: Out of office policy",
    "Re: Your vacation request",
    "Re: Urlaub",
    "Out of stock",
    "Autobahn",
    "AW: Eingangsbestätigung Ihrer Bestellung 12",
    "Re: Request for a case that you received",
    "Re: Absence report for May",
    "Re: Automatic reply settings",
    "[list] Re: automation question",
    "Re: Auto response rates in May",
    "SV: Semester 2027",
)


def _answer(subject: str, *fields: str) -> bytes:
    return "\n".join(
        ["From: jane@b.test", f"Subject: {subject}", "In-Reply-To: <1@a.test>", *fields, "", "Hi", ""]
    ).encode()


@pytest.mark.parametrize("subjects", MACHINES.values(), ids=MACHINES)
def test_the_subject_of_a_machine_is_known(subjects: str) -> None:
    missed = [each for each in subjects.split("|") if not isinstance(read(_answer(each)), AutoReply)]
    assert missed == [] and len(subjects.split("|")) >= 5
    word = base64.b64encode(subjects.split("|")[0].encode()).decode()
    assert isinstance(read(_answer(f"=?utf-8?B?{word}?=")), AutoReply)


@pytest.mark.parametrize("subject", PERSONS)
def test_the_subject_of_a_person_is_left_to_the_person(subject: str) -> None:
    assert isinstance(read(_answer(subject)), Reply)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        (("Precedence: list", "List-Id: <x.b.test>"), Reply),
        (("Precedence: list",), Reply),
        (("Precedence: bulk", "List-Id: <x.b.test>", "List-Post: <mailto:x@b.test>"), Reply),
        (("List-Unsubscribe: <mailto:x@b.test>", "List-Help: <https://b.test/>"), Reply),
        (("Auto-Submitted: no", "List-Id: <x.b.test>"), Reply),
        (("Precedence: bulk",), AutoReply),
        (("Precedence: junk", "List-Id: <x.b.test>"), AutoReply),
        (("Precedence: auto_reply", "List-Id: <x.b.test>"), AutoReply),
        (("Auto-Submitted: auto-replied", "List-Id: <x.b.test>"), AutoReply),
        (("X-Autoreply: yes", "Precedence: list"), AutoReply),
    ],
)
def test_what_a_mailing_list_adds_makes_no_machine(fields: tuple[str, ...], kind: type) -> None:
    content = _answer("Re: Your order", *fields)
    assert isinstance(read(content), kind)
    assert (interest(content)[0] is Interest.ANSWER) is (kind is Reply)


@pytest.mark.parametrize("text", ["[a] ", "re: ", "(", "a is ", "automatic ", "i am ", "【", "ticket "])
def test_a_long_subject_is_only_read(text: str) -> None:
    assert says_automatic(text * (500 // len(text))) in (True, False)
