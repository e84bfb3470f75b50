"""The one base of every error that relayd raises on purpose.

Its text is shown to the operator as it is: it says what is wrong and what to do next, and never holds a secret.
"""


class RelaydError(Exception):
    """Broken infrastructure or a command that cannot be carried out; `str(error)` is fit for an operator."""


class StoreUnavailable(RelaydError):
    """Postgres cannot be reached or cannot write just now; trying again later may work."""


class StoreFull(StoreUnavailable):
    """The disk that Postgres writes to is full."""


class Refusal(RelaydError):
    """A command asks for what cannot be done: unknown name, name taken, bad value. Nothing was changed.

    `hint` is the next step, where there is one: a command to type or what is allowed.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class BeyondTier(Refusal):
    """A command asks for more than its client's tier allows. Kept in the audit trail."""


class NotFound(Refusal):
    """A command names something that does not exist."""


class BadValue(Refusal):
    """A command gives a value that can never be right, whatever else exists."""
