"""Messages that come back, as different systems write them, and what each of them says."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Sample:
    """A message of the corpus and what is to be read in it. `kind`: bounce, delay, complaint, auto, reply, nothing."""

    path: Path
    system: str
    matched: str
    kind: str
    recipient: str | None = None
    status: str | None = None
    bounce_type: str | None = None
    category: str | None = None
    feedback_type: str | None = None
    message_id: str | None = None

    @property
    def meaning(self) -> str:
        """As the documentation's table has it."""
        if self.kind == "bounce":
            return f"{self.bounce_type}: {self.category}"
        return f"complaint: {self.feedback_type}" if self.kind == "complaint" else self.kind


def samples(name: str) -> list[Sample]:
    """A set of messages."""
    rows = tomllib.loads((HERE / name / "table.toml").read_text())["report"]
    return [Sample(path=HERE / name / row.pop("file"), **row) for row in rows]
