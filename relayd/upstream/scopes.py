"""What a token is asked to allow: the least that each of Google's modes needs."""

# SMTP with XOAUTH2 takes no narrower one.
MAIL = "https://mail.google.com/"
# Making drafts and sending them, and nothing of what is in the mailbox.
COMPOSE = "https://www.googleapis.com/auth/gmail.compose"
# To look whether a doubtful message went. Not gmail.metadata, which is narrower: a token that has it may not search,
# whatever else it has.
READ = "https://www.googleapis.com/auth/gmail.readonly"
# Who has logged in; asked for at a login alone.
IDENTITY = ("openid", "email")

_BY_MODE = {"smtp-relay": (MAIL,), "xoauth2": (MAIL,), "gmail_api": (COMPOSE, READ)}


def scopes_of(mode: str | None) -> tuple[str, ...]:
    """What upstreams of google_workspace need in this mode; nothing for others, whose provider's names differ."""
    return _BY_MODE.get(mode or "", ())
