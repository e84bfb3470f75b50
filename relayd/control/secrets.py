"""Handlers for sealed values as a whole: under which keys they are, and sealing all of them anew. Never a value."""

from collections import Counter
from typing import Annotated

from pydantic import Field

from relayd.control import rotation
from relayd.control.rotation import Position
from relayd.control.route import Context, Nothing, Request, Route, View
from relayd.rules.control_events import SecretsResealed
from relayd.seal import key_id_of
from relayd.store import nodes, sealcheck, sealed
from relayd.store.sealed import SEALED_COLUMNS

_SECONDS = 10.0


class KeyView(View):
    """A key by its id, and how many values are sealed with it. `is_loaded`: this node can open them."""

    id: str
    is_current: bool
    is_loaded: bool
    values: int


class PlaceView(View):
    """How many values of a column are sealed with a key; `key` null: they are no sealed values at all."""

    column: str
    key: str | None
    values: int


class NodeView(View):
    """A node that runs now, with the ids of its keys."""

    name: str
    sealing_key: str
    opening_keys: list[str]


class SecretsView(View):
    """Every key that is loaded here or still needed. `silent_nodes` run too, and cannot say which keys they have."""

    keys: list[KeyView]
    places: list[PlaceView]
    nodes: list[NodeView]
    silent_nodes: int


class Rotate(Request):
    """Seal everything anew with this node's current key."""

    dry_run: Annotated[bool, Field(description="Change nothing: say what would be done, and what cannot")] = False
    anyway: Annotated[bool, Field(description="Even though a node that runs lacks the key: its mail waits")] = False
    cursor: Annotated[str | None, Field(max_length=200, description="Go on where the last answer ended")] = None


class ClosedView(View):
    """A value that opens under no key; `label` is the name of what it belongs to."""

    row: str
    label: str
    reason: str


class Rotated(View):
    """What this request did. With a cursor there is more to do: ask again with it."""

    key: str
    dry_run: bool
    resealed: int
    current: int
    changing: Annotated[int, Field(description="Changed by others all the while: rotate again")]
    closed: list[ClosedView]
    cursor: str | None


async def show_secrets(context: Context, request: Nothing) -> SecretsView:
    """How many values under which key, so that one knows when an older key may go."""
    seal = context.house.seal
    async with context.reading() as connection:
        counts = {str(column): await sealed.count(connection, column) for column in SEALED_COLUMNS}
        word = await sealcheck.read(connection)
        known, silent = await nodes.living(connection)
    if word is not None:
        counts[sealcheck.ROW.replace("/", ".")] = {key_id_of(word): 1}
    places = [
        PlaceView(column=column, key=key, values=many)
        for column, by_key in counts.items()
        for key, many in sorted(by_key.items(), key=lambda pair: pair[0] or "")
    ]
    totals = Counter(dict.fromkeys(seal.key_ids, 0))
    for place in places:
        if place.key is not None:
            totals[place.key] += place.values
    keys = [
        KeyView(id=key, is_current=key == seal.current_id, is_loaded=key in seal.key_ids, values=many)
        for key, many in totals.items()
    ]
    return SecretsView(
        keys=keys,
        places=places,
        nodes=[NodeView.model_validate(node) for node in known],
        silent_nodes=silent,
    )


async def rotate_secrets(context: Context, request: Rotate) -> Rotated:
    """For some seconds; workers, nodes and other commands go on meanwhile. May be repeated at any time."""
    seal = context.house.seal
    start = Position.parse(request.cursor) if request.cursor else Position()
    if not request.dry_run:
        await rotation.begin(context, anyway=request.anyway, is_first=request.cursor is None)
    tally, position = await rotation.walk(context, start, dry_run=request.dry_run, seconds=_SECONDS)
    if tally.resealed and not request.dry_run:
        context.house.emit(SecretsResealed(context.actor, seal.current_id, tally.resealed, len(tally.closed)))
    return Rotated(
        key=seal.current_id,
        dry_run=request.dry_run,
        resealed=tally.resealed,
        current=tally.current,
        changing=tally.changing,
        closed=[ClosedView.model_validate(each) for each in tally.closed],
        cursor=str(position) if position else None,
    )


ROUTES = (
    Route("GET", "/v1/secrets", show_secrets, "Which keys the sealed values are under", Nothing, SecretsView),
    Route("POST", "/v1/secrets/rotate", rotate_secrets, "Seal everything with the current key", Rotate, Rotated),
)
