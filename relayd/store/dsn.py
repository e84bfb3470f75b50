"""Read a DSN: where Postgres is and who we are there. The password is taken out at once: no message can show it."""

from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from relayd.errors import RelaydError

_FORM = "postgresql://user@host:5432/database (several hosts separated by commas; a socket by ?host=/directory)"
_DEFAULT_PORT = 5432


@dataclass(frozen=True, slots=True)
class Host:
    """A host name or address, or the directory of a socket, and the port."""

    name: str
    port: int

    def __str__(self) -> str:
        if self.name.startswith("/"):
            return self.name
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


@dataclass(frozen=True, slots=True)
class Dsn:
    """`hosts` may be empty: then asyncpg's defaults hold. `options` are the rest, as (name, value) pairs."""

    hosts: tuple[Host, ...]
    user: str | None
    database: str | None
    password: str | None = field(repr=False)
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def options_only(self) -> str:
        """A DSN that says nothing but the options: the rest is passed to asyncpg by keyword."""
        return f"postgresql://?{urlencode(self.options)}" if self.options else "postgresql://"

    def safe(self) -> str:
        """The DSN without any secret."""
        user = f"{quote(self.user)}@" if self.user else ""
        hosts = ",".join(quote(str(host), safe=":[]") if host.name[0] == "/" else str(host) for host in self.hosts)
        return f"postgresql://{user}{hosts}/{quote(self.database or '')}"


def parse_dsn(text: str, password: str | None = None) -> Dsn:
    """Read `text`; `password` overrides one in it. Raises RelaydError, which quotes nothing of the text."""
    try:
        parts = urlsplit(text)
    except ValueError:
        raise RelaydError(f"the database's DSN cannot be read; it should look like {_FORM}") from None
    if parts.scheme not in ("postgresql", "postgres"):
        raise RelaydError(f"the database's DSN should look like {_FORM}")
    authority, at, hosts = parts.netloc.rpartition("@")
    if parts.fragment or (not at and "@" in parts.path + parts.query):
        # A raw one would end the host early, and the rest of a password be taken for a host or database.
        raise RelaydError(
            "the database's DSN holds a raw '#', '/' or '?' before '@': percent-encode it (%23, %2F, %3F)"
        )
    user, _, own_password = authority.partition(":")
    options = dict(_options(parts))
    query_password = options.pop("password", None)
    return Dsn(
        hosts=_hosts(unquote(hosts) or options.pop("host", ""), options.pop("port", "")),
        user=unquote(user) or options.pop("user", None),
        database=unquote(parts.path[1:]) or options.pop("database", options.pop("dbname", None)),
        password=password or unquote(own_password) or query_password,
        options=tuple(options.items()),
    )


def _options(parts: SplitResult) -> list[tuple[str, str]]:
    try:
        return parse_qsl(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        raise RelaydError("the database's DSN has options that are not name=value pairs joined by '&'") from None


def _hosts(names: str, ports: str) -> tuple[Host, ...]:
    if not names:
        return ()
    listed = names.split(",")
    given = ports.split(",") if ports else [""]
    if len(given) not in (1, len(listed)):
        raise RelaydError("the database's DSN names several ports, but not one for each host")
    if len(given) == 1:
        given *= len(listed)
    return tuple(_host(name, port) for name, port in zip(listed, given, strict=True))


def _host(text: str, default_port: str) -> Host:
    if text.startswith("/"):
        name, port = text, ""
    elif text.startswith("["):
        name, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    else:
        name, _, port = text.partition(":")
    port = port or default_port or str(_DEFAULT_PORT)
    if not name or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise RelaydError("the database's DSN has an empty host or a port that is not a number from 1 to 65535")
    return Host(name, int(port))
