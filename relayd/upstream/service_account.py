"""A service account's key file: what is wrong with one that cannot be used. Errors quote nothing of it."""

import json
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from relayd.errors import BadValue
from relayd.mail.address import Address

_WANTED = "download a JSON key of a service account: console.cloud.google.com, IAM, Service Accounts, Keys"
_LEAST_BITS = 2048


@dataclass(frozen=True, slots=True)
class ServiceAccountKey:
    """A key file that can be used. `client_id` is what the Admin console asks for."""

    email: str
    client_id: str | None
    content: dict[str, Any] = field(repr=False)

    def as_json(self) -> bytes:
        """As it is sealed."""
        return json.dumps(self.content).encode()


def parse_key(text: str) -> ServiceAccountKey:
    """Raises BadValue, which says what the file is instead."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        is_cut = text.lstrip().startswith("{") and not text.rstrip().endswith("}")
        what = "the key file is cut off in the middle" if is_cut else "the key file is not JSON"
        raise BadValue(what, hint=_WANTED) from None
    if not isinstance(content, dict):
        raise BadValue("the key file is JSON, but no service account's key", hint=_WANTED)
    _check_type(content)
    for name in ("client_email", "private_key"):
        if not isinstance(content.get(name), str) or not content[name].strip():
            raise BadValue(f"the key file has no {name}", hint=_WANTED)
    _check_key(content["private_key"])
    client_id = content.get("client_id")
    return ServiceAccountKey(
        _email(content["client_email"]),
        client_id if isinstance(client_id, str) and client_id.isdigit() else None,
        # The rest of the file is of no use.
        {name: content[name] for name in ("client_email", "private_key", "private_key_id") if name in content},
    )


def _check_type(content: dict[str, Any]) -> None:
    if "installed" in content or "web" in content:
        raise BadValue(
            "the file is an OAuth client's, not a service account's key",
            hint="for a user's login: relayd upstream set NAME --oauth-client-id ID --oauth-client-secret-file FILE,"
            " then relayd upstream login NAME",
        )
    match content.get("type"):
        case "service_account":
            return
        case "authorized_user":
            raise BadValue(
                "the file is a user's credentials (authorized_user), not a service account's key",
                hint="for a user's login: relayd upstream login NAME",
            )
        case "external_account":
            raise BadValue(
                "the file is for workload identity federation, which cannot speak for mailboxes", hint=_WANTED
            )
        case _:
            raise BadValue("the file is no service account's key: its type is another", hint=_WANTED)


def _check_key(pem: str) -> None:
    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError):
        raise BadValue("the key file's private_key is damaged or encrypted", hint=_WANTED) from None
    except Exception:
        # The library has exceptions of its own for algorithms that it does not know.
        raise BadValue("the key file's private_key cannot be used", hint=_WANTED) from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < _LEAST_BITS:
        raise BadValue(f"the key file's private_key is no RSA key of {_LEAST_BITS} bits or more", hint=_WANTED)


def _email(text: str) -> str:
    try:
        return Address.parse(text).plain
    except ValueError:
        raise BadValue("the key file's client_email is no address", hint=_WANTED) from None
