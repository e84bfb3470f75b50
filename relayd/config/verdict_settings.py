"""`[[verdicts]]`: the operator's own readings of replies. What could lose mail, or try it for ever, is refused."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from relayd.rules.outcome import Stage

SmtpCode = Annotated[str, Field(pattern=r"^[45]([0-9]{2}|[0-9]x|xx)$")]
HttpStatus = Annotated[str, Field(pattern=r"^[345]([0-9]{2}|[0-9]x|xx)$")]
OneLine = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
_OPENING = frozenset({Stage.CONNECT, Stage.EHLO, Stage.STARTTLS, Stage.AUTH})


class VerdictSettings(BaseModel):
    """What a reply means, before all that relayd knows of it by itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    upstream: OneLine | None = None
    dialect: Literal["google", "sendgrid", "microsoft365", "ses", "postfix", "exim", "generic"] | None = None
    stages: tuple[Literal["connect", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "dot"], ...] = ()
    codes: tuple[SmtpCode, ...] = ()
    enhanced: Annotated[str, Field(pattern=r"^[45]\.[0-9x]{1,3}\.[0-9x]{1,3}$")] | None = None
    text: OneLine | None = None
    http: tuple[HttpStatus, ...] = ()
    reason: OneLine | None = None
    outcome: Literal["deferred", "failed", "postponed"]
    scope: Literal["upstream", "mailbox", "message", "recipient"]
    hold_seconds: Annotated[float, Field(ge=1, le=86400)] = 300.0
    limit: Literal["day", "hour"] | None = None
    note: Annotated[str, Field(max_length=200)] = ""

    @field_validator("http", "reason")
    @classmethod
    def _of_one_protocol(cls, value: Any, info: ValidationInfo) -> Any:
        if value and any(info.data.get(name) for name in ("stages", "codes", "enhanced")):
            raise ValueError("either stages, codes and enhanced for SMTP, or http and reason for an API")
        return value

    @field_validator("outcome")
    @classmethod
    def _tells_something(cls, value: str, info: ValidationInfo) -> str:
        told = ("codes", "enhanced", "text", "http", "reason")
        if not any(info.data.get(name) for name in told) and all(name in info.data for name in told):
            raise ValueError("codes, enhanced, text or http beside it, or it would be said of every reply")
        if info.data.get("reason") and not info.data.get("http"):
            raise ValueError("http beside reason")
        if value == "failed" and _OPENING & set(info.data.get("stages", ())):
            raise ValueError("deferred or postponed: before MAIL no reply can condemn a message")
        return value

    @field_validator("scope")
    @classmethod
    def _possible(cls, value: str, info: ValidationInfo) -> str:
        outcome, stages = info.data.get("outcome"), set(info.data.get("stages", ()))
        if outcome == "failed" and value not in ("message", "recipient"):
            raise ValueError("message or recipient with failed")
        if outcome == "deferred" and value == "mailbox":
            raise ValueError("postponed with mailbox: a deferral spends attempts and lets the mailbox go on")
        if value == "recipient" and (info.data.get("http") or stages - {"rcpt", "data", "dot"}):
            raise ValueError("upstream, mailbox or message: only rcpt, data and dot speak of a recipient")
        return value

    @field_validator("limit")
    @classmethod
    def _of_whom(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and (
            info.data.get("outcome") != "postponed" or info.data.get("scope") not in ("upstream", "mailbox")
        ):
            raise ValueError("postponed with upstream or mailbox beside it")
        return value
