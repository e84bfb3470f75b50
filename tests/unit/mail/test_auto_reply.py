"""Tell a machine's answer from a person's."""

from email.header import Header

import pytest

from relayd.mail import auto_reply, loose_header
from relayd.mail.report import AutoReply, Reply
from relayd.mail.report_reader import read

MACHINES = [
    "Out of office",
    "Out of Office: Your order 4711",
    "Re: Out of office",
    "RE: Out of the office.",
    "AW: Re: Automatic reply",
    "[AUTO GENERATED] Your order 4711",
    "[AUTO-REPLY] Hello",
    "(Auto response) Hello",
    "[Ticket#4711] Automatic reply: Hello",
    "Auto-generated: we got it",
    "I am on vacation",
    "I'm out of the office until Monday",
    "I am currently away",
    "On parental leave",
    "Annual leave - back in May",
    "Eingangsbestätigung",
    "Eingangsbestätigung Ihrer Nachricht",
    "Automatische Eingangsbestätigung: Bestellung 4711",
    "Abwesenheitsnotiz: Ihre Bestellung",
    "AW: Abwesenheitsnotiz",
    "Im Urlaub bis 5. Mai".removeprefix("Im "),
    "Accusé de réception",
    "Absence du bureau",
    "Réponse automatique : commande",
    "En congé jusqu'au 5 mai",
    "Acuse de recibo",
    "Respuesta automática: pedido",
    "De vacaciones hasta mayo",
    "Confirmação de recebimento",
    "Fora do escritório",
    "Conferma di ricezione",
    "In ferie fino al 5 maggio",
    "Ontvangstbevestiging",
    "Niet aanwezig",
    "Autosvar: beställning",
    "Automatiskt svar",
    "SV: Frånvarande",
    "Jag är på semester",
    "Ej på kontoret",
    "Mottagningsbekräftelse",
    "Ikke på kontoret",
    "Fraværsmelding",
    "Poissa toimistolta",
    "رد تلقائي: طلبك",
    "خارج المكتب",
    "أنا في إجازة",
    "الرد التلقائي",
    "Re: رد تلقائي",
    "מענה אוטומטי",
    "תשובה אוטומטית: הזמנה",
    "מחוץ למשרד",
    "בחופשה עד מאי",
    "Re: מחוץ למשרד",
    "ตอบกลับอัตโนมัติ",
    "ตอบกลับอัตโนมัติ: คำสั่งซื้อ",
    "ไม่อยู่ที่สำนักงาน",
    "ลาพักร้อน",
    "[ข้อความอัตโนมัติ] สวัสดี",
    "Trả lời tự động",
    "Thư trả lời tự động: đơn hàng",
    "Phản hồi tự động",
    "Vắng mặt đến thứ hai",
    "Nghỉ phép",
    "Balasan otomatis",
    "自動返信: ご注文",
    "自动回复: 订单",
    "자동 회신: 주문",
    "Ofis dışında",
    "Odpowiedź automatyczna",
    "Автоматический ответ: заказ",
    "Αυτόματη απάντηση",
]
PERSONS = [
    "Re: Your order 4711",
    "Re: Vacation rental 4711",
    "Re: Out of office hours, when do you open?",
    "Re: Automatic reply does not work in your app",
    "AW: Ihre Abwesenheitsnotiz war falsch",
    "Re: [Ticket#4711] Hello",
    "Question about the automatic reply",
    "My holiday photos",
    "SV: Semester i Grekland",
    "Re: Eingangsbestätigung",
    "Re: حجز إجازة",
    "Re: Đặt nghỉ phép ở Đà Lạt",
    "Sự vắng mặt của bạn".removeprefix("Sự vắng mặt ") + " hôm nay",
    "Re: חופשה ביוון",
    "Hello",
]


def message(subject: str, *fields: str) -> bytes:
    lines = [
        "From: Jane <jane@example.net>",
        "To: shop@example.com",
        f"Subject: {Header(subject, 'utf-8' if not subject.isascii() else 'ascii').encode()}",
        "In-Reply-To: <4711@example.com>",
        *fields,
    ]
    return "\r\n".join([*lines, "", "Hello", ""]).encode()


@pytest.mark.parametrize("subject", MACHINES)
def test_a_machine_is_told_by_its_subject(subject: str) -> None:
    assert isinstance(read(message(subject)), AutoReply)


@pytest.mark.parametrize("subject", PERSONS)
def test_a_person_may_write_of_the_same_things(subject: str) -> None:
    assert isinstance(read(message(subject)), Reply)


@pytest.mark.parametrize(
    "fields",
    [
        ("Precedence: list", "List-Id: <users.example.org>"),
        ("Precedence: bulk", "List-Id: <users.example.org>", "List-Post: <mailto:users@example.org>"),
        ("Precedence: list",),
        ("List-Unsubscribe: <mailto:leave@example.org>", "List-Id: <users.example.org>"),
        ("Precedence: junk", "List-Post: <mailto:users@example.org>"),
        ("Auto-Submitted: no", "Precedence: list"),
    ],
)
def test_an_answer_that_came_through_a_mailing_list_is_a_persons(fields: tuple[str, ...]) -> None:
    assert isinstance(read(message("Re: Hello", *fields)), Reply)


@pytest.mark.parametrize(
    "field",
    [
        *("Precedence: bulk", "Precedence: auto_reply", "Auto-Submitted: auto-replied", "X-Autoreply: yes"),
        *("Auto-Submitted: auto-generated", "Precedence: junk"),
    ],
)
def test_a_machine_that_says_so_is_one(field: str) -> None:
    assert isinstance(read(message("Re: Hello", field)), AutoReply)


@pytest.mark.parametrize("subject", ["[" * 5000, "Re: " * 2000, "x" * 50_000, "out of " * 5000])
def test_a_hostile_subject_costs_little(subject: str) -> None:
    header = loose_header.parse(f"Subject: {subject}\n\n".encode())[0]
    assert auto_reply.is_auto_reply(header) is (subject.startswith("out of the"))
