"""Tell a machine's answer from a person's (RFC 3834), by its header first, by its subject where that says nothing."""

import re

from relayd.mail import loose_header
from relayd.mail.headers import HeaderScan
from relayd.mail.loose_header import LooseHeader

# After `Re:` stands the subject of what was sent, which is no machine's word about itself.
_SUBJECT = re.compile(
    r"\A\s*(?:\[[^\]]{1,40}\]\s*)*(?:auto(?:matic|mated|matische|matica|mática|"
    r"matisch)?[ -]?(?:re(?:ply|sponse)|antwort|answer|réponse)|"
    r"(?:[^:]{1,60} is )?out of (?:the )?office|ooo\b|away from|vacation|on (?:annual )?leave|"
    r"i am (?:currently )?(?:away|out)|"
    r"automatische (?:antwort|abwesenheit|beantwoording)|"
    r"abwesen|(?:[^:]{1,60} ist )?außer haus|[^:]{1,60} est absent|"
    r"réponse automatique|absence|absent du bureau|respuesta automática|"
    r"fuera de (?:la )?oficina|resposta automática|fora do escritório|"
    r"risposta automatica|assen(?:te|za)\b|fuori (?:sede|ufficio)|automatisch antwoord|afwezig|"
    r"автоответ|автоматический ответ|"
    r"вне офиса|自动(?:回复|答复)|自動(?:回覆|応答|返信)|不在(?:通知)?|"
    r"autosvar|automatisk svar|automaattinen vastaus|odpowiedź automatyczna|automatyczna odpowiedź|"
    r"automatick[áé] odpov|automatikus válasz|otomatik yanıt|răspuns automat|samodejni odgovor|automatski odgovor|"
    r"автоматична відповідь|αυτόματη απάντηση|자동 ?(?:회신|응답)|부재 ?중|autoreply|auto:)",
    re.IGNORECASE,
)
_RECEIPT = re.compile(
    r"(?i)\A(?!\s*(?:re|aw|sv|tr|rv|vs|antw|odp|res):).{0,200}?"
    r"(?:(?:ticket|case|request)\b.{0,30}(?:received|created|opened)|"
    r"(?:we have|we've) received your|read receipt)|\A\s*(?:read|gelesen|lu|leído|letto|lida|gelezen):"
)


def is_auto_reply(header: LooseHeader) -> bool:
    """Whether no person wrote this answer."""
    submitted = header.first("auto-submitted").strip().lower()
    if submitted and not submitted.startswith("no"):
        return True
    if any(header.first(name) for name in ("x-autoreply", "x-autorespond", "x-autoresponder", "x-auto-reply-from",
                                           "x-autoreply-from", "x-mail-autoreply", "x-vacation")):  # fmt: skip
        return True
    if header.first("precedence").strip().lower() in ("auto_reply", "auto-reply", "bulk", "junk", "list"):
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
