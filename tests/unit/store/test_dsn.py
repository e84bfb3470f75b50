"""Reading a DSN, and never showing what is secret in it."""

import pytest

from relayd.errors import RelaydError
from relayd.store.dsn import Host, parse_dsn


@pytest.mark.parametrize(
    ("text", "hosts", "user", "database", "password", "safe"),
    [
        (
            "postgresql://me:secret@db1:5433,db2/mail",
            (Host("db1", 5433), Host("db2", 5432)),
            "me",
            "mail",
            "secret",
            "postgresql://me@db1:5433,db2:5432/mail",
        ),
        (
            "postgres://me@/mail?host=/run/pg&port=6000",
            (Host("/run/pg", 6000),),
            "me",
            "mail",
            None,
            "postgresql://me@%2Frun%2Fpg/mail",
        ),
        ("postgresql://[::1]:7/m", (Host("::1", 7),), None, "m", None, "postgresql://[::1]:7/m"),
        ("postgresql://u:a%23b%2Fc@h/m", (Host("h", 5432),), "u", "m", "a#b/c", "postgresql://u@h:5432/m"),
        ("postgresql://u:se@cret@h/m", (Host("h", 5432),), "u", "m", "se@cret", "postgresql://u@h:5432/m"),
        ("postgresql:///m?user=u&password=secret", (), "u", "m", "secret", "postgresql://u@/m"),
        (
            "postgresql:///m?host=a,b&port=1,2",
            (Host("a", 1), Host("b", 2)),
            None,
            "m",
            None,
            "postgresql://a:1,b:2/m",
        ),
    ],
)
def test_a_dsn_is_read_and_shown_without_its_password(text, hosts, user, database, password, safe):
    dsn = parse_dsn(text)
    assert (dsn.hosts, dsn.user, dsn.database, dsn.password) == (hosts, user, database, password)
    assert dsn.safe() == safe
    assert password is None or password not in repr(dsn)


def test_a_password_given_apart_wins():
    assert parse_dsn("postgresql://u:old@h/m", "new").password == "new"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host=localhost password=secret",
        "mysql://u:secret@h/m",
        "postgresql://u:12#secret@h/m",
        "postgresql://u:secret/secret@h/m",
        "postgresql://u:1?secret@h/m",
        "postgresql://u:x@h:secret/m",
        "postgresql://u:x@h:99999/m",
        "postgresql://u:x@[secret/m",
        "postgresql://u:x@h,/m?secret",
        "postgresql://a,b,c/m?port=1,2",
    ],
)
def test_a_bad_dsn_is_refused_without_quoting_it(text):
    with pytest.raises(RelaydError) as caught:
        parse_dsn(text)
    assert "secret" not in str(caught.value)
