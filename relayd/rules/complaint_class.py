"""Which feedback reports are complaints (RFC 5965 7.3, RFC 6591): what a reader says, not what a receiver measures."""

# `not-spam` is the opposite; failures of SPF, DKIM and DMARC speak of messages that somebody else may have sent.
_NO_COMPLAINT = ("not-spam", "auth-failure", "dmarc", "x-arf-", "dkim", "spf")


def counts(feedback_type: str) -> bool:
    """Whether a report of this type says that a reader did not want the message."""
    return not feedback_type.startswith(_NO_COMPLAINT)
