"""A whole relayd and a local Google: a service account's tokens, Gmail's API, a doubt looked up, a dead grant."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from relayd.upstream.scopes import scopes_of
from tests.conftest import at_length
from tests.e2e.house import House, wait_until
from tests.e2e.mail import send
from tests.peers.gmail_api import Cut, GmailApi
from tests.peers.google_oauth import Answer, GoogleOauth
from tests.peers.mail import Authority

SENDER = "noreply@example.com"


class Accounts(dict[str, str]):
    """Whose a token is, as the token server gave it out."""

    def __init__(self, oauth: GoogleOauth) -> None:
        super().__init__()
        self._oauth = oauth

    def get(self, token: str, default: Any = None) -> Any:
        found = self._oauth.issued.get(token)
        return default if found is None or token in self._oauth.revoked else found.account


@at_length
async def test_gmails_api_from_login_to_a_doubt_that_is_resolved(
    make_house: Callable[..., House], tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    async with GoogleOauth(authority) as oauth:
        with GmailApi(authority.server_context("127.0.0.1")) as gmail:
            gmail.tokens = Accounts(oauth)
            key = oauth.service_account(users=[SENDER], scopes=scopes_of("gmail_api"))
            house = make_house(processes=1, delivery={"first_look_seconds": 0.2})
            await asyncio.to_thread(_drive, house, oauth, gmail, key, tmp_path)
            assert oauth.refreshes() >= 1


def _drive(house: House, oauth: GoogleOauth, gmail: GmailApi, key: str, directory: Path) -> None:
    house.start()
    key_file = directory / "key.json"
    key_file.write_text(key)
    key_file.chmod(0o600)
    house.run("client", "add", "acme")
    where = ("--api-url", gmail.url, "--token-url", oauth.token_url, "--ca-file", oauth.authority.file)
    house.run("upstream", "add", "gw", "--provider", "google_workspace", "--mode", "gmail_api", *where)
    house.run("upstream", "set-service-account", "gw", "--file", str(key_file))
    house.run("domain", "add", "example.com", "--client", "acme")
    house.run("mailbox", "add", SENDER, "--upstream", "gw", "--daily-limit", "unlimited")

    tried = house.json("upstream", "test", "gw", "--to", "x@example.net", "--from", SENDER)
    assert tried["is_ok"], tried

    sent = send(house, ["x@example.net"], sender=SENDER)
    wait_until(lambda: status(house, sent) == "sent", what="the first message")

    gmail.interfere = lambda method, times: Cut.AFTER if method == "drafts.send" else None
    doubtful = send(house, ["x@example.net"], sender=SENDER)
    wait_until(lambda: "uncertain" in events(house, doubtful), what="the doubt")
    gmail.interfere = lambda method, times: None
    wait_until(lambda: status(house, doubtful) == "sent", what="its resolution")
    assert "resolved" in events(house, doubtful)
    assert gmail.recipients["x@example.net"] == 2, "once each"

    oauth.revoked |= set(oauth.issued)
    oauth.script.extend([Answer.error("unauthorized_client", "Client is unauthorized")] * 50)
    waiting = send(house, ["x@example.net"], sender=SENDER)

    told = wait_until(
        lambda: (text := house.run("explain", waiting).stdout) and "gets no token" in text and text,
        what="the dead grant in explain",
    )
    assert "gw" in told and status(house, waiting) == "queued"
    assert "event=grant_died" in house.log_text()
    for secret in (key.split("\\n")[1], *oauth.issued):
        assert secret not in house.log_text()


def status(house: House, queue_id: str) -> str:
    (entry,) = house.json("message", "show", queue_id)["entries"]
    return str(entry["status"])


def events(house: House, queue_id: str) -> list[str]:
    (entry,) = house.json("message", "show", queue_id)["entries"]
    return [each["event"] for each in house.json("queue", "show", entry["entry_id"])["log"]]
