"""The connections of a node, counted in memory that all of its workers share: a cap of the node holds exactly.

The memory is a file without a name. A slot of it holds the process that serves a connection and a hash of its peer; 0
is a free slot. Before them stands the number of slots that were ever in use.
"""

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

from relayd.rules.session_events import Cap

SLOTS = 1 << 17
_HEADER = struct.Struct("=I")
_OWNER_OCTETS = 4
_PEER_OCTETS = 16
_OWNERS_AT = 16
_PEERS_AT = _OWNERS_AT + SLOTS * _OWNER_OCTETS
_OCTETS = _PEERS_AT + SLOTS * _PEER_OCTETS
# A process that was stopped while it held the lock keeps the others waiting no longer.
_LOCK_SECONDS = 0.05


class ConnectionSlots:
    """As one process sees them. `descriptor` is for the processes that share them; None makes new ones."""

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = _new_file() if descriptor is None else descriptor
        self._memory = mmap.mmap(self.descriptor, _OCTETS)
        self._owners = memoryview(self._memory)[_OWNERS_AT:_PEERS_AT].cast("I")
        self._pid = os.getpid()

    def take(self, peer: str, *, most: int, most_per_peer: int) -> int | Cap:
        """A slot for a connection of this peer, or the cap that is reached."""
        key = blake2b(peer.encode(), digest_size=_PEER_OCTETS).digest()
        with self._locked():
            (used,) = _HEADER.unpack_from(self._memory)
            owners = self._owners[:used].tolist()
            free = owners.count(0)
            if used - free >= min(most, SLOTS):
                return Cap.CONNECTIONS
            if self._memory[_PEERS_AT : _PEERS_AT + used * _PEER_OCTETS].count(key) >= most_per_peer:
                return Cap.CONNECTIONS_PER_PEER
            slot = owners.index(0) if free else used
            self._set_peer(slot, key)
            self._owners[slot] = self._pid
            if slot == used:
                _HEADER.pack_into(self._memory, 0, used + 1)
        return slot

    def release(self, slot: int) -> None:
        """The connection is gone."""
        self._set_peer(slot, bytes(_PEER_OCTETS))
        self._owners[slot] = 0

    def release_all_of(self, pid: int) -> None:
        """The process is gone."""
        with self._locked():
            (used,) = _HEADER.unpack_from(self._memory)
            owners = self._owners[:used].tolist()
            for slot, owner in enumerate(owners):
                if owner == pid:
                    self.release(slot)
            while used and not self._owners[used - 1]:
                used -= 1
            _HEADER.pack_into(self._memory, 0, used)

    def _set_peer(self, slot: int, key: bytes) -> None:
        begin = _PEERS_AT + slot * _PEER_OCTETS
        self._memory[begin : begin + _PEER_OCTETS] = key

    @contextmanager
    def _locked(self) -> Iterator[None]:
        give_up_at = time.monotonic() + _LOCK_SECONDS
        is_locked = False
        while not is_locked and time.monotonic() < give_up_at:
            try:
                fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_locked = True
            except OSError:
                time.sleep(0)
        try:
            yield
        finally:
            if is_locked:
                fcntl.lockf(self.descriptor, fcntl.LOCK_UN)


def _new_file() -> int:
    descriptor = os.memfd_create("connections")
    os.ftruncate(descriptor, _OCTETS)
    return descriptor
