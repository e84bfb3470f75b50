"""The memory that messages on their way in may take together in this process, however many sessions there are."""


class Room:
    """Counts octets held. Not a lock: nobody waits, who finds no room is told to come again."""

    def __init__(self, octets: int) -> None:
        self._octets = octets
        self.held = 0

    def has_room_for(self, octets: int) -> bool:
        """Whether so many more would fit."""
        return self.held + octets <= self._octets


class Share:
    """One message's part of the room. Use as a context manager: at its end the room is free again."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._held = 0

    def hold(self, octets: int) -> bool:
        """Hold so many in all from now on; False, and none held, if they do not fit."""
        if self._room.has_room_for(octets - self._held):
            self._room.held += octets - self._held
            self._held = octets
            return True
        self._room.held -= self._held
        self._held = 0
        return False

    def __enter__(self) -> "Share":
        return self

    def __exit__(self, *_: object) -> None:
        self._room.held -= self._held
        self._held = 0
