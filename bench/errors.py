"""The bench's one exception: something that the person at the terminal can mend, or why a trial failed."""


class BenchError(Exception):
    """Its text is for that person, without a traceback."""
