"""Encryption at rest: AES-256-GCM, bound to the row that holds the value, under keys that can be rotated.

A sealed value is: version (1 octet), key id (4), nonce (12), ciphertext with its tag. The head and the row are
authenticated too, so a value moved to another row or column does not open.
"""

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Iterable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_OCTETS = 32

_VERSION = b"\x01"
_KEY_ID_OCTETS = 4
_NONCE_OCTETS = 12
_TAG_OCTETS = 16
HEAD_OCTETS = len(_VERSION) + _KEY_ID_OCTETS
_ADVICE = "make one with: relayd key new"


class SealError(Exception):
    """A key or a sealed value that cannot be used; `str(error)` is fit for an operator and holds no secret."""


class Seal:
    """Seals with the current key and opens with every key it was given. Immutable, so safe to share."""

    def __init__(self, current: bytes, older: Iterable[bytes] = ()) -> None:
        """Keys as `parse_key` returns them. Raises SealError for a wrong length or two keys of one id."""
        self._ciphers: dict[bytes, AESGCM] = {}
        self._current = _key_id(current)
        keys: dict[bytes, bytes] = {}
        for key in (current, *older):
            if len(key) != KEY_OCTETS:
                raise SealError(f"a sealing key has {len(key)} octets, not {KEY_OCTETS}; {_ADVICE}")
            key_id = _key_id(key)
            if keys.setdefault(key_id, key) != key:
                raise SealError(f"two sealing keys share the id {key_id.hex()}; replace one of them; {_ADVICE}")
            self._ciphers[key_id] = AESGCM(key)
        self._roots = tuple(hmac.digest(key, b"relayd: derived keys", "sha256") for key in keys.values())

    def __repr__(self) -> str:
        others = sorted(key_id.hex() for key_id in self._ciphers if key_id != self._current)
        return f"Seal(current={self._current.hex()}, older={others})"

    def seal(self, plaintext: bytes, *, row: str) -> bytes:
        """Seal for one column of one row, named as `table/<primary key>/column`. Never twice the same result."""
        head = _VERSION + self._current
        # A fresh random nonce keeps GCM safe for 2**32 values under one key (NIST SP 800-38D 8.3).
        nonce = os.urandom(_NONCE_OCTETS)
        return head + nonce + self._ciphers[self._current].encrypt(nonce, plaintext, _associated(head, row))

    def open(self, sealed: bytes, *, row: str) -> bytes:
        """The plaintext of what was sealed for the same row. Raises SealError saying what is wrong."""
        key_id = _key_id_of(sealed, row)
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            loaded = ", ".join(sorted(known.hex() for known in self._ciphers))
            raise SealError(
                f"{row} is sealed with key id {key_id.hex()}, which is not loaded (loaded: {loaded}); "
                "add that key to the sealing keys"
            )
        head, rest = sealed[:HEAD_OCTETS], sealed[HEAD_OCTETS:]
        try:
            return cipher.decrypt(rest[:_NONCE_OCTETS], rest[_NONCE_OCTETS:], _associated(head, row))
        except InvalidTag:
            raise SealError(f"{row} cannot be opened: the value was altered or moved from another row") from None

    def derived(self, purpose: str) -> tuple[bytes, ...]:
        """Keys for something else than sealing, the current one's first. They tell nothing of the sealing keys."""
        return tuple(hmac.digest(root, purpose.encode(), "sha256") for root in self._roots)

    def is_current(self, sealed: bytes) -> bool:
        """False when a rotation still has to seal this value anew."""
        return sealed[:HEAD_OCTETS] == _VERSION + self._current

    @property
    def current_id(self) -> str:
        """The id of the key that seals. Ids are no secret: they are told to people and to other nodes."""
        return self._current.hex()

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of all keys that open, the current one first."""
        return tuple(key_id.hex() for key_id in self._ciphers)


def key_id_of(sealed: bytes) -> str | None:
    """The id of the key that a value is sealed with, by its first HEAD_OCTETS; None for what is not sealed."""
    return sealed[1:HEAD_OCTETS].hex() if len(sealed) >= HEAD_OCTETS and sealed[:1] == _VERSION else None


def new_key() -> str:
    """A new random key in base64, as `parse_key` reads it."""
    return base64.b64encode(os.urandom(KEY_OCTETS)).decode()


def parse_key(text: bytes) -> bytes:
    """A key from the content of a key file: base64 of 32 octets. Raises SealError without quoting the text."""
    stripped = text.strip()
    if not stripped:
        raise SealError(f"the sealing key is empty; {_ADVICE}")
    try:
        key = base64.b64decode(stripped, validate=True)
    except (binascii.Error, ValueError):
        raise SealError(f"the sealing key is not base64; {_ADVICE}") from None
    if len(key) != KEY_OCTETS:
        raise SealError(f"the sealing key is {len(key)} octets in base64, not {KEY_OCTETS}; {_ADVICE}")
    return key


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()[:_KEY_ID_OCTETS]


def _key_id_of(sealed: bytes, row: str) -> bytes:
    if len(sealed) < HEAD_OCTETS + _NONCE_OCTETS + _TAG_OCTETS:
        raise SealError(f"{row} does not hold a sealed value")
    if sealed[:1] != _VERSION:
        raise SealError(f"{row} is sealed in format {sealed[0]}, which this version of relayd does not know")
    return sealed[1:HEAD_OCTETS]


def _associated(head: bytes, row: str) -> bytes:
    return head + row.encode()
