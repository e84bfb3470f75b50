"""How well bounces and replies are read: `python -m tests.reports [FILE ...]`.

A FILE is a file of replies or a directory with messages and their table.toml; without one, the sets of this project.
Exits with 1 if an address would be suppressed that must not be.
"""

import sys
from pathlib import Path

from relayd.rules.bounce_class import classify
from tests.reports.reading import mistakes
from tests.reports.table import HERE, REPLIES, meaning_of, replies, samples


def measure_replies(path: Path) -> int:
    """Print the figures of a file of replies; return how many innocent addresses it would suppress."""
    told = [(sample, meaning_of(classify(sample.refusal))) for sample in replies(path)]
    innocent = [(sample, meaning) for sample, meaning in told if not sample.suppresses]
    gone = [meaning for sample, meaning in told if sample.suppresses]
    wrong = [(sample, meaning) for sample, meaning in innocent if meaning.endswith(" suppresses")]
    kinds = sum(sample.meaning.split()[0] == meaning.split()[0] for sample, meaning in told)
    categories = sum(sample.meaning.split()[1] == meaning.split()[1] for sample, meaning in told)
    missed = sum(not meaning.endswith(" suppresses") for meaning in gone)
    print(f"{path.parent.name}/{path.name}: {len(told)} replies")
    print(f"  hard or soft right: {kinds} ({kinds / len(told):.1%})")
    print(f"  category right: {categories} ({categories / len(told):.1%})")
    print(f"  wrong suppressions: {len(wrong)} of {len(innocent)}")
    print(f"  missed suppressions: {missed} of {len(gone)}")
    for sample, meaning in told:
        if sample.meaning != meaning:
            print(f"    {meaning}, not {sample.line}")
    return len(wrong)


def measure_messages(directory: Path) -> int:
    """Print the figures of a set of messages; return how many innocent addresses it would suppress."""
    every = samples(directory)
    wrong = [(sample, found) for sample in every if (found := mistakes(sample, sample.path.read_bytes()))]
    of_kind = [
        sample
        for sample, found in wrong
        if any(each.startswith(("kind", "bounce_type", "recipient")) for each in found)
    ]
    innocent = [sample for sample, found in wrong if "suppresses: True, not False" in found]
    print(f"{directory.name}: {len(every)} messages")
    print(f"  kind, recipient, hard or soft right: {len(every) - len(of_kind)}; all right: {len(every) - len(wrong)}")
    print(f"  wrong suppressions: {len(innocent)} of {sum(sample.suppresses is False for sample in every)}")
    for sample, found in wrong:
        print(f"    {sample.path.name} ({sample.system}): {'; '.join(found)}")
    return len(innocent)


def main() -> int:
    """Measure what is named, or everything."""
    paths = [Path(each) for each in sys.argv[1:]] or [
        REPLIES,
        *(HERE / each for each in ("corpus", "foreign", "unseen", "unseen/replies.txt")),
    ]
    return 1 if sum(measure_messages(path) if path.is_dir() else measure_replies(path) for path in paths) else 0


if __name__ == "__main__":
    sys.exit(main())
