"""The parameters by which an upstream is told of which fate to tell the sender (RFC 3461 4).

They were checked at the door. What is not well formed here all the same is left out: a space in one would be a
parameter more.
"""

import re

from relayd.mail import xtext
from relayd.mail.envelope import RecipientNotice, Transmission

_XTEXT = r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+"
_ENVELOPE_ID = re.compile(_XTEXT)
_ORCPT = re.compile(rf"[A-Za-z0-9-]+;{_XTEXT}")
# RFC 6533 3: an address of type utf-8 goes as it is where SMTPUTF8 is spoken, else with its letters spelled out.
_UTF8_ORCPT = re.compile(r"utf-8;(?:[^\x00-\x20+=\x7f-\x9f\ud800-\udfff])+", re.IGNORECASE)
_EVENT = "(?:SUCCESS|FAILURE|DELAY)"
_NOTIFY = re.compile(rf"NEVER|{_EVENT}(?:,{_EVENT}){{0,2}}", re.IGNORECASE)
MAX_ENVELOPE_ID_CHARACTERS = 100
MAX_ORCPT_CHARACTERS = 500


def mail_parameters(transmission: Transmission) -> str:
    """RET and ENVID, each after a space."""
    parameters = ""
    if transmission.dsn_ret in ("FULL", "HDRS"):
        parameters += f" RET={transmission.dsn_ret}"
    identifier = transmission.envelope_id
    if identifier and len(identifier) <= MAX_ENVELOPE_ID_CHARACTERS and _ENVELOPE_ID.fullmatch(identifier):
        parameters += f" ENVID={identifier}"
    return parameters


def recipient_parameters(notice: RecipientNotice, *, smtputf8: bool) -> str:
    """NOTIFY and ORCPT, each after a space. `smtputf8`: the transaction is one of SMTPUTF8."""
    parameters = ""
    if notice.notify and _NOTIFY.fullmatch(notice.notify):
        parameters += f" NOTIFY={notice.notify}"
    orcpt = notice.orcpt or ""
    if _UTF8_ORCPT.fullmatch(orcpt) and not smtputf8:
        orcpt = xtext.in_ascii(orcpt)
    if len(orcpt) <= MAX_ORCPT_CHARACTERS and (_ORCPT.fullmatch(orcpt) or _UTF8_ORCPT.fullmatch(orcpt)):
        parameters += f" ORCPT={orcpt}"
    return parameters
