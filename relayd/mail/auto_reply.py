"""Tell a machine's answer from a person's (RFC 3834), by its header first, by its subject where that says nothing."""

import re

from relayd.mail import loose_header
from relayd.mail.headers import HeaderScan
from relayd.mail.loose_header import LooseHeader

# What a machine calls its answer, in the languages in which it does.
_PHRASES = r"""
auto(?:matic|mated|matische|matica|mática|matisch)?[ -]?(?:re(?:ply|sponse)|antwort|answer|réponse)
auto[ -]?generated|automatically generated|auto:|(?:[^:]{1,60} is )?out of (?:the |my )?office|ooo\b|away from
vacation|on (?:annual |parental |maternity )?(?:leave|vacation|holiday)|annual leave
i(?: a|'|’)m (?:currently )?(?:away|out|on (?:vacation|holiday|leave)|not in)|away message|not in the office
automatische (?:antwort|abwesenheit|beantwoording)|abwesen\w{0,20}|urlaub|nicht im büro|(?:[^:]{1,60} ist )?außer haus
réponse automatique|absence|absent(?:e)? du bureau|[^:]{1,60} est absent|en congés?|respuesta automática
fuera de (?:la |mi )?oficina|de vacaciones|resposta automática|fora do escritório|de férias|risposta automatica
assen(?:te|za)\b|fuori (?:sede|ufficio)|in ferie|automatisch antwoord|afwezig|niet aanwezig|met vakantie
автоответ|автоматический ответ|вне офиса|в отпуске|автоматична відповідь|自动(?:回复|答复)|自動(?:回覆|応答|返信)
不在(?:通知)?|外出中|休暇|休假|자동 ?(?:회신|응답)|부재 ?중|휴가|autosvar|automatisk(?:t)? svar|frånvaro|frånvarande
(?:jag är )?på semester|ej på kontoret|inte på kontoret|ikke på kontoret|fraværsmelding|fravær|på ferie
automaattinen vastaus|poissa(?:olo)?|lomalla|odpowiedź automatyczna|automatyczna odpowiedź|nieobecn
automatick[áé] odpov|mimo kancelář|nepřítomn|automatikus válasz|házon kívül|otomatik (?:yanıt|cevap)|ofis dışında
răspuns automat|samodejni odgovor|automatski odgovor|автоматичен отговор|αυτόματη απάντηση|εκτός γραφείου
رد تلقائي|الرد التلقائي|خارج المكتب|(?:أنا )?في إجازة|مكتب: خارج|پاسخ خودکار|(?:מענה|תשובה|תגובה) (?:אוטומטית?|אוטומטי)
מחוץ למשרד|בחופשה|ตอบกลับอัตโนมัติ|การตอบกลับอัตโนมัติ|ข้อความอัตโนมัติ|ไม่อยู่ที่สำนักงาน|ลาพักร้อน
(?:thư )?(?:trả lời|phản hồi) tự động|vắng mặt|không có mặt tại văn phòng|nghỉ phép|balasan otomatis|di luar kantor
स्वचालित (?:उत्तर|प्रतिक्रिया)|autoreply|autorespon
"""
_ANY = "|".join(_PHRASES.strip().split("\n"))
_BRACKETS = r"\s*(?:[\[(【][^\])】]{1,40}[\])】]\s*)*"
_REPLIED = r"(?:re|aw|sv|vs|tr|rv|antw|odp|res|回复|回覆|답장)\s{0,2}[:：]"
# After `Re:` stands the subject of what was sent, which is no machine's word about itself, unless it is nothing else.
_SUBJECT = re.compile(
    rf"\A{_BRACKETS}(?:{_ANY})"
    rf"|\A\s*[\[(【]\s*(?:{_ANY})[^\])】]{{0,40}}[\])】]"
    rf"|\A\s*(?:{_REPLIED}\s*){{1,4}}(?:{_ANY})[\s.!]{{0,5}}\Z",
    re.IGNORECASE,
)
_RECEIPT = re.compile(
    r"(?i)\A(?!\s*(?:re|aw|sv|tr|rv|vs|antw|odp|res):).{0,200}?"
    r"(?:(?:ticket|case|request)\b.{0,30}(?:received|created|opened)|"
    r"(?:we have|we've) received your|read receipt)|\A\s*(?:read|gelesen|lu|leído|letto|lida|gelezen):"
    r"|\A\s*(?:(?:automatische )?eingangsbestätigung|empfangsbestätigung|lesebestätigung|"
    r"accusé de (?:réception|lecture)|acuse de recibo|"
    r"confirmação de (?:recebimento|leitura)|conferma di (?:ricezione|lettura)|ontvangstbevestiging|"
    r"mottagningsbekräftelse|kvitteringsmeddelelse|potwierdzenie (?:odbioru|otrzymania)|"
    r"подтверждение (?:получения|прочтения)|受付(?:完了|確認)|受信確認|已收到|수신 ?확인)"
)


def is_auto_reply(header: LooseHeader) -> bool:
    """Whether no person wrote this answer."""
    submitted = header.first("auto-submitted").strip().lower()
    if submitted and not submitted.startswith("no"):
        return True
    if any(header.first(name) for name in ("x-autoreply", "x-autorespond", "x-autoresponder", "x-auto-reply-from",
                                           "x-autoreply-from", "x-mail-autoreply", "x-vacation")):  # fmt: skip
        return True
    precedence = header.first("precedence").strip().lower()
    # A mailing list marks what persons write to it, too.
    is_of_list = bool(header.first("list-id") or header.first("list-post"))
    if precedence in ("auto_reply", "auto-reply") or (precedence in ("bulk", "junk") and not is_of_list):
        return True
    content_type = header.first("content-type").lower()
    if "disposition-notification" in content_type or header.first("x-ms-exchange-generated-message-source"):
        return True
    subject = header.decoded("subject")
    return bool(_SUBJECT.search(subject) or _RECEIPT.search(subject))


def is_read_receipt(scan: HeaderScan) -> bool:
    """Whether the whole message is a message disposition notification (RFC 8098 3)."""
    fields = scan.all(b"Content-Type")
    if len(fields) != 1:
        return False
    content_type, parameters = loose_header.parameters(fields[0].value.decode("latin-1"))
    return (
        content_type == "multipart/report" and parameters.get("report-type", "").lower() == "disposition-notification"
    )
