"""Messages that come back and replies, as different systems write them, and what each of them says."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from relayd.rules.bounce_class import BounceClass, Refusal
from relayd.rules.outcome import Stage

HERE = Path(__file__).parent
REPLIES = HERE / "replies.txt"

_PREFIX = re.compile(
    r"(?:to (?P<to>\S+?@[^\s@]+)@|dsn (?P<status>\d\.\d+\.\d+)@|(?P<stage>mail|rcpt|data|dot)@)?(?P<reply>.*)",
    re.DOTALL,
)


@dataclass(frozen=True)
class ReplySample:
    """A line of a file of replies, whose head says how lines are written. `meaning`: `hard no_such_user suppresses`."""

    line: str
    meaning: str
    refusal: Refusal

    @property
    def suppresses(self) -> bool:
        """Whether the address must be suppressed."""
        return self.meaning.endswith(" suppresses")


def meaning_of(found: BounceClass) -> str:
    """A class in the words of the file."""
    return f"{found.kind} {found.category}" + (" suppresses" if found.suppresses else "")


def replies(path: Path = REPLIES) -> list[ReplySample]:
    """The replies of a file."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return [_reply(line) for line in lines]


def _reply(line: str) -> ReplySample:
    meaning, _, rest = line.partition("|")
    found = _PREFIX.fullmatch(rest)
    assert found is not None
    stage = Stage(found["stage"]) if found["stage"] else Stage.RCPT if found["to"] else None
    refusal = Refusal(found["reply"], None, found["status"], stage, (found["to"] or "u@b.test",))
    return ReplySample(line, meaning, refusal)


@dataclass(frozen=True)
class Sample:
    """A message of the corpus and what is to be read in it. `kind`: bounce, delay, complaint, auto, reply, nothing."""

    path: Path
    system: str
    kind: str
    matched: str = ""
    recipient: str | None = None
    status: str | None = None
    bounce_type: str | None = None
    category: str | None = None
    suppresses: bool | None = None
    feedback_type: str | None = None
    message_id: str | None = None

    @property
    def meaning(self) -> str:
        """As the documentation's table has it."""
        if self.kind == "bounce":
            return f"{self.bounce_type}: {self.category}"
        return f"complaint: {self.feedback_type}" if self.kind == "complaint" else self.kind


def samples(directory: Path) -> list[Sample]:
    """A set of messages."""
    rows = tomllib.loads((directory / "table.toml").read_text())["report"]
    return [Sample(path=directory / row.pop("file"), **row) for row in rows]
