"""The raw results: one JSON file, from which table and plot are drawn."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.load import Figures, Latency, Load, Trial

FILE = "results.json"


@dataclass(frozen=True, slots=True)
class Results:
    """All that is known of a run. `is_short`: fewer messages and one round, good for a look alone."""

    date: str
    is_short: bool
    machine: dict[str, str]
    signatures: dict[str, str]
    trials: Sequence[Trial]

    def loads(self) -> list[Load]:
        """In the order in which they were first tried."""
        return list(dict.fromkeys(trial.load for trial in self.trials))


def today() -> str:
    return date.today().isoformat()


def save(results: Results, directory: Path) -> None:
    """One trial a line, so that two runs can be compared by eye."""
    trials = ",\n".join(json.dumps(_rounded(asdict(trial))) for trial in results.trials)
    head = {
        "date": results.date,
        "is_short": results.is_short,
        "machine": results.machine,
        "signatures": results.signatures,
    }
    text = json.dumps(head, indent=1)
    (directory / FILE).write_text(f'{text.removesuffix("}").rstrip()},\n "trials": [\n{trials}\n]}}\n')


def load(directory: Path) -> Results:
    """Raises BenchError if there are none yet."""
    path = directory / FILE
    if not path.exists():
        raise BenchError(f"there is no {FILE} yet: measure first")
    found = json.loads(path.read_text())
    return Results(**{**found, "trials": [_trial(each) for each in found["trials"]]})


def _trial(found: dict[str, Any]) -> Trial:
    figures = found["figures"]
    if figures is not None:
        latency = figures["latency"] and Latency(**figures["latency"])
        figures = Figures(**{**figures, "latency": latency})
    return Trial(**{**found, "load": Load(**found["load"]), "figures": figures})


def _rounded(value: Any) -> Any:
    """Four digits behind the point: the rest is noise."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return round(value, 4) if isinstance(value, float) else value
