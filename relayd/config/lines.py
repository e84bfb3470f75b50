"""Where in a TOML text each key stands, so that an error can name the line. tomllib does not say."""

import re
import tomllib

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*\'''',
    re.DOTALL,
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE = re.compile(r"[^,\]}#\n]+")  # a date may hold a space


def key_lines(text: str) -> dict[Path, int]:
    """The line (from 1) of every table, key and array element, by path; elements count from 0.

    `text` must be TOML that tomllib has taken: nothing is checked here again.
    """
    scan = _Scan(text.replace("\r\n", "\n"))
    scan.document()
    return scan.lines


def line_of(lines: dict[Path, int], path: Path) -> int:
    """The line of `path`, else of the nearest table around it, else 1."""
    for end in range(len(path), 0, -1):
        if path[:end] in lines:
            return lines[path[:end]]
    return 1


class _Scan:
    """One pass over a document. `lines` is what was found."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._elements: dict[Path, int] = {}  # of arrays of tables: the latest index

    def document(self) -> None:
        """Read it all."""
        table: Path = ()
        self._blank()
        while self._at < len(self._text):
            if self._next() == "[":
                table = self._header()
            else:
                self._pair(table)
            self._blank()

    def _header(self) -> Path:
        begin = self._at
        is_array = self._text.startswith("[[", begin)
        self._at += 2 if is_array else 1
        path = self._resolved(self._key(), is_array=is_array)
        self._at += 2 if is_array else 1
        if is_array:
            self._note(path[:-1], begin)
        self._note(path, begin)
        return path

    def _resolved(self, key: Path, *, is_array: bool) -> Path:
        """A header's key as a path: a name of an array of tables means its latest element."""
        path: Path = ()
        for place, part in enumerate(key):
            path = (*path, part)
            if is_array and place == len(key) - 1:
                self._elements[path] = self._elements.get(path, -1) + 1
            if path in self._elements:
                path = (*path, self._elements[path])
        return path

    def _pair(self, table: Path) -> None:
        begin = self._at
        key = self._key()
        for end in range(1, len(key) + 1):
            self._note(table + key[:end], begin)
        self._at += 1  # the equals sign
        self._blank()
        self._value(table + key)

    def _key(self) -> Path:
        """A dotted key and the space after it."""
        parts: list[str] = []
        while True:
            self._blank()
            if self._next() in "\"'":
                parts.append(tomllib.loads("key = " + self._take(_STRING))["key"])
            else:
                parts.append(self._take(_BARE_KEY))
            self._blank()
            if self._next() != ".":
                return tuple(parts)
            self._at += 1

    def _value(self, path: Path) -> None:
        match self._next():
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case '"' | "'":
                self._take(_STRING)
            case _:
                self._take(_BARE_VALUE)

    def _array(self, path: Path) -> None:
        self._at += 1
        self._blank()
        index = 0
        while self._next() != "]":
            self._note((*path, index), self._at)
            self._value((*path, index))
            index += 1
            self._comma()
        self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        self._blank()
        while self._next() != "}":
            self._pair(path)
            self._comma()
        self._at += 1

    def _comma(self) -> None:
        self._blank()
        if self._next() == ",":
            self._at += 1
            self._blank()

    def _blank(self) -> None:
        self._take(_BLANK)

    def _next(self) -> str:
        return self._text[self._at]

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        assert found is not None
        self._at = found.end()
        return found.group()

    def _note(self, path: Path, position: int) -> None:
        self.lines.setdefault(path, self._text.count("\n", 0, position) + 1)
