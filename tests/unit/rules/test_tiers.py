from relayd.rules.tiers import DEFAULT_TIERS, Holdings, Tier, amount, by_name, excess, larger


def test_the_tiers_that_come_with_relayd() -> None:
    assert {tier.name: (tier.domains, tier.mailboxes, tier.dedicated_ips) for tier in DEFAULT_TIERS} == {
        "Ignition": (2, 3, 1),
        "Velocity": (3, 6, 1),
        "Dominance": (5, 11, 2),
    }


def test_a_configured_tier_comes_beside_them_and_replaces_one_of_its_name() -> None:
    tiers = by_name([Tier("Agency", domains=20), Tier("Ignition", mailboxes=1)])
    assert list(tiers) == ["Ignition", "Velocity", "Dominance", "Agency"]
    assert tiers["Ignition"] == Tier("Ignition", mailboxes=1)
    assert tiers["Agency"].mailboxes is None


def test_up_to_the_limit_is_no_excess_and_one_more_is() -> None:
    ignition = DEFAULT_TIERS[0]
    assert not list(excess(ignition, Holdings(2, 3, 1)))
    assert list(excess(ignition, Holdings(3, 4, 2))) == [
        "3 domains where 2 are allowed",
        "4 mailboxes where 3 are allowed",
        "2 dedicated IPs where 1 is allowed",
    ]
    assert list(excess(ignition, Holdings(3, 4, 2), ("mailboxes",))) == ["4 mailboxes where 3 are allowed"]


def test_none_is_no_limit_and_zero_is_none_at_all() -> None:
    assert not list(excess(Tier("Agency"), Holdings(1000, 1000, 1000)))
    assert list(excess(Tier("Empty", dedicated_ips=0), Holdings(0, 0, 1))) == ["1 dedicated IP where 0 are allowed"]


def test_which_tiers_are_large_enough() -> None:
    assert [tier.name for tier in larger(DEFAULT_TIERS, Holdings(3, 3, 1))] == ["Velocity", "Dominance"]
    assert not list(larger(DEFAULT_TIERS, Holdings(6, 3, 1)))


def test_amounts_in_words() -> None:
    assert [amount(count, "dedicated_ips") for count in (0, 1, 2, None)] == [
        "0 dedicated IPs",
        "1 dedicated IP",
        "2 dedicated IPs",
        "any number of dedicated IPs",
    ]
