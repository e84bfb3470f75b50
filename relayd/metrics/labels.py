"""Names as label values, without an end to the series they make."""

OTHER = "other"


class BoundedNames:
    """The first so many distinct names; every later one is "other". Each process has its own first ones."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def label(self, name: str) -> str:
        """The name, or "other"."""
        if name in self._known:
            return name
        if len(self._known) < self._most:
            self._known.add(name)
            return name
        return OTHER
