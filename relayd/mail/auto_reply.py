"""Tell a machine's answer from a person's (RFC 3834), by its header first, by its subject where that says nothing."""

import re

from relayd.mail.loose_header import LooseHeader

_SUBJECT = re.compile(
    r"\A\s*(?:re:\s*|aw:\s*|sv:\s*|\[[^\]]{1,40}\]\s*)*(?:auto(?:matic|mated|matische|matica|mática|"
    r"matisch)?[ -]?(?:re(?:ply|sponse)|antwort|answer|réponse)|"
    r"out of (?:the )?office|ooo\b|away from|vacation|on (?:annual )?leave|i am (?:currently )?(?:away|out)|"
    r"automatische (?:antwort|abwesenheit|beantwoording)|"
    r"abwesen|außer haus|réponse automatique|absence|absent du bureau|respuesta automática|"
    r"fuera de (?:la )?oficina|resposta automática|fora do escritório|"
    r"risposta automatica|fuori (?:sede|ufficio)|automatisch antwoord|afwezig|автоответ|автоматический ответ|"
    r"вне офиса|自动(?:回复|答复)|自動(?:回覆|応答|返信)|不在(?:通知)?|"
    r"autosvar|automatisk svar|automaattinen vastaus|odpowiedź automatyczna|autoreply|auto:)",
    re.IGNORECASE,
)
_RECEIPT = re.compile(
    r"(?i)(?:ticket|case|request)\b.{0,30}(?:received|created|opened)|(?:we have|we've) received your|"
    r"read receipt|\A\s*(?:read|gelesen|lu|leído|letto|lida|gelezen):"
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
