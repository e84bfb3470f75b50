"""Python imports this by itself at its start, if it finds it: a claim without turns of clients, for the comparison.

There is no trace of it in the product. It raises if the claim no longer looks as it did: nothing is compared then.
"""

from relayd.store import claim

_TURNS = {
    # Lanes of crowded-out clients are not looked for,
    "SELECT count(*) FROM longest WHERE longest.upstream_id = u.id) >= u.wanted": "SELECT false) ",
    # those that waited longest come first, whosever they are,
    "ORDER BY rank, runnable_at) AS place": "ORDER BY runnable_at) AS place",
    # and so do messages.
    "ORDER BY client_turn, turn, lane_id) AS place": "ORDER BY turn, lane_id) AS place",
}

for _present, _instead in _TURNS.items():
    if claim.CLAIM.count(_present) != 1:
        raise SystemExit(f"the claim without turns cannot be planted: {_present!r} is not in it once")
    claim.CLAIM = claim.CLAIM.replace(_present, _instead)
