"""Hold a client to its tier. Asked after the change, in its transaction: a refusal takes the change back with it."""

from collections.abc import Mapping
from uuid import UUID

from relayd.errors import BadValue, BeyondTier, Refusal
from relayd.rules.tiers import Noun, Tier, amount, excess, larger
from relayd.store import clients
from relayd.store.connection import Connection


def known(tiers: Mapping[str, Tier], name: str) -> Tier:
    """The tier of that name. Raises BadValue, which says which there are."""
    if name not in tiers:
        raise BadValue(f"there is no tier {name}", hint=f"tiers: {', '.join(tiers)}; others are set in [[tiers]]")
    return tiers[name]


async def check_room(connection: Connection, tiers: Mapping[str, Tier], client_id: UUID, noun: Noun) -> None:
    """Refuse if the client now has more of this than its tier allows. Of two who add at once, the second sees both."""
    client, holdings = await clients.lock_holdings(connection, client_id)
    tier = tiers.get(client.tier)
    if tier is None:
        raise Refusal(
            f"client {client.name} is in the tier {client.tier}, which is not configured",
            hint=f"add it to [[tiers]], or: relayd client set {client.name} --tier {next(iter(tiers))}",
        )
    if any(excess(tier, holdings, (noun,))):
        raise BeyondTier(
            f"client {client.name} is in the tier {tier.name}, which allows {amount(tier.limit(noun), noun)}",
            hint=_ways_out(client.name, noun, [each.name for each in larger(tiers.values(), holdings)]),
        )


async def check_all(connection: Connection, tiers: Mapping[str, Tier], client_id: UUID) -> None:
    """Refuse if the client has more of anything than its tier allows."""
    client, holdings = await clients.lock_holdings(connection, client_id)
    tier = known(tiers, client.tier)
    too_much = ", ".join(excess(tier, holdings))
    if too_much:
        raise BeyondTier(
            f"the tier {tier.name} is too small for client {client.name}: {too_much}",
            hint="remove what is too much first, or choose a larger tier",
        )


def _ways_out(client: str, noun: Noun, names: list[str]) -> str:
    lists = {"domains": "domain", "mailboxes": "mailbox", "dedicated_ips": "upstream"}
    remove = f"remove one: relayd {lists[noun]} list --client {client}"
    return f"relayd client set {client} --tier {names[0]}, or {remove}" if names else f"{remove}"
