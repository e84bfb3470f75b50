"""What a worker is told at its start. It travels over the inherited channel, so no secret is in argv or environment."""

from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import Any, Self

from relayd.config.settings import Settings
from relayd.daemon.sockets import Mode
from relayd.rules.login_failures import Row
from relayd.seal import Seal


@dataclass(frozen=True, slots=True)
class Secrets:
    """The resolved secrets of a node. Never printed."""

    database_password: str | None
    sealing_key: bytes
    older_keys: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return "Secrets(...)"

    def seal(self) -> Seal:
        """The seal that these keys make."""
        return Seal(self.sealing_key, self.older_keys)


@dataclass(frozen=True, slots=True)
class Orders:
    """A worker's place among its node's workers, its sockets, its settings."""

    settings: Settings
    secrets: Secrets
    claimant: str
    index: int
    sockets: tuple[tuple[int, Mode], ...]  # inherited file descriptors and how TLS begins on them
    connection_slots: int  # the descriptor of what counts the connections of all workers
    provision_for: str | None  # development mode: the client in whose name unknown senders are made
    # What the node knows of failed logins, as `LoginFailures.rows` has it.
    login_failures: tuple[list[Row], list[tuple[str, str]]] = field(default_factory=lambda: ([], []))

    def to_json(self) -> dict[str, Any]:
        """As the channel carries it."""
        return {
            "settings": self.settings.model_dump(mode="json"),
            "database_password": self.secrets.database_password,
            "sealing_key": b64encode(self.secrets.sealing_key).decode(),
            "older_keys": [b64encode(key).decode() for key in self.secrets.older_keys],
            "claimant": self.claimant,
            "index": self.index,
            "sockets": list(self.sockets),
            "connection_slots": self.connection_slots,
            "provision_for": self.provision_for,
            "login_failures": list(self.login_failures),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(
            settings=Settings.model_validate(values["settings"]),
            secrets=Secrets(
                values["database_password"],
                b64decode(values["sealing_key"]),
                tuple(b64decode(key) for key in values["older_keys"]),
            ),
            claimant=values["claimant"],
            index=values["index"],
            sockets=tuple((descriptor, mode) for descriptor, mode in values["sockets"]),
            connection_slots=values["connection_slots"],
            provision_for=values["provision_for"],
            login_failures=_login_failures(*values["login_failures"]),
        )


def _login_failures(rows: list[Any], known: list[Any]) -> tuple[list[Row], list[tuple[str, str]]]:
    return (
        [(peer, age, [(key, count) for key, count in failures]) for peer, age, failures in rows],
        [(peer, key) for peer, key in known],
    )
