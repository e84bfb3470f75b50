"""Which route mail takes, and which share of a weighted list."""

from uuid import UUID, uuid4

import pytest

from relayd.mail.address import Address
from relayd.rules.routing import Choice, RouteRule, domain_matches, route_for, share_of
from relayd.store.ids import new_id

MAILBOX, OTHER = uuid4(), uuid4()
A, B, C = (UUID(int=n) for n in (1, 2, 3))
AUTHOR = Address.parse("app@example.com")


def rule(*, mailbox: UUID | None = None, to: str | None = None, sender: str | None = None) -> RouteRule:
    return RouteRule(uuid4(), mailbox, to, sender, (Choice(A, None),))


@pytest.mark.parametrize(
    ("pattern", "domain", "fits"),
    [
        ("example.net", "example.net", True),
        ("example.net", "mail.example.net", False),
        ("*.example.net", "mail.example.net", True),
        ("*.example.net", "a.b.example.net", True),
        ("*.example.net", "example.net", False),
        ("*.example.net", "notexample.net", False),
    ],
)
def test_a_pattern_with_a_star_means_all_below_and_one_without_that_domain_alone(
    pattern: str, domain: str, fits: bool
) -> None:
    assert domain_matches(pattern, domain) is fits


def chosen(rules: list[RouteRule], recipient: str, author: Address = AUTHOR) -> RouteRule | None:
    return route_for(rules, mailbox_id=MAILBOX, author=author, recipient=Address.parse(recipient))


def test_the_first_rule_that_fits_decides() -> None:
    rules = [rule(to="example.org"), rule(to="example.net"), rule(sender="example.com")]
    assert chosen(rules, "you@example.net") is rules[1]
    assert chosen(rules, "you@elsewhere.example") is rules[2]
    assert chosen(rules[:2], "you@elsewhere.example") is None


def test_all_conditions_of_a_rule_have_to_fit() -> None:
    both = rule(to="example.net", sender="app@example.com")
    assert chosen([both], "you@example.net") is both
    assert chosen([both], "you@example.org") is None
    assert chosen([both], "you@example.net", Address.parse("else@example.com")) is None
    assert chosen([rule(mailbox=OTHER, to="example.net")], "you@example.net") is None


def test_addresses_and_domains_are_compared_as_dns_and_logins_compare_them() -> None:
    assert chosen([rule(sender="app@example.com")], "you@example.net", Address.parse("App@Example.com"))
    assert chosen([rule(to="xn--bcher-kva.example")], "you@bücher.example")


def test_shares_follow_the_weights_and_a_message_keeps_its_share() -> None:
    choices = [Choice(A, 70), Choice(B, 20), Choice(C, 10)]
    ids = [new_id() for _ in range(5000)]
    shares = [share_of(each, choices) for each in ids]
    assert shares == [share_of(each, choices) for each in ids]
    # The first one's share needs no lane of its own.
    assert {each: round(shares.count(each) / 500) for each in (None, B, C)} == {None: 7, B: 2, C: 1}


def test_a_list_in_order_has_no_shares() -> None:
    assert share_of(new_id(), [Choice(A, None), Choice(B, None)]) is None
    assert share_of(new_id(), []) is None
