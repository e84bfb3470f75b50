"""A constraint that a command's values break, told in the operator's words: Postgres's own text goes to nobody."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from relayd.errors import BadValue, Refusal


@contextmanager
def explained(*, taken: str) -> Iterator[None]:
    """Run a statement that writes. Raises Refusal(taken) for a name in use, BadValue for a value no column takes."""
    try:
        yield
    except asyncpg.UniqueViolationError:
        raise Refusal(taken) from None
    except asyncpg.ForeignKeyViolationError:
        raise Refusal("what this belongs to was removed in the meantime; nothing was changed") from None
    except asyncpg.IntegrityConstraintViolationError as error:
        where = error.constraint_name or error.column_name or "a constraint"
        raise BadValue(f"a value breaks the rule {where}; nothing was changed") from None
    except asyncpg.DataError:
        raise BadValue("a value does not fit its column; nothing was changed") from None
