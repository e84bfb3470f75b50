"""smtp.gmail.com and smtp-relay.gmail.com: STARTTLS, XOAUTH2 against the tokens on record, the rule of the EHLO name.

    async with GoogleSmtp(google, domains={"example.com"}) as server: ...

A script (see `smtp_server`) decides over what is said; without one it answers as Google does.
"""

import base64
import json
from collections.abc import Collection, Mapping, Sequence

from relayd.rules.outcome import Stage
from tests.peers.google_oauth import GoogleOauth
from tests.peers.smtp_server import Action, Conversation, ScriptedServer

NOT_ACCEPTED = (
    "535-5.7.8 Username and Password not accepted. For more information, go to\n535 5.7.8 https://example.com/ - gsmtp"
)
NO_RELAY = "550 5.7.1 Invalid credentials for relay [127.0.0.1]. The IP address you've registered is another - gsmtp"


class GoogleSmtp(ScriptedServer):
    def __init__(
        self,
        google: GoogleOauth,
        script: Mapping[Stage, Action | Sequence[Action]] | None = None,
        *,
        domains: Collection[str] = (),
        needs_login: bool = True,
    ) -> None:
        """`domains`: those that may relay without a login, by the name in EHLO (smtp-relay's rule by address)."""
        super().__init__(
            script,
            extensions=("SIZE 35882577", "8BITMIME", "AUTH LOGIN PLAIN XOAUTH2", "ENHANCEDSTATUSCODES", "SMTPUTF8"),
            starttls=google.authority.server_context("localhost"),
        )
        self.google = google
        self.domains = frozenset(domains)
        self.needs_login = needs_login
        self.logins: list[str] = []
        self.empty_answers = 0
        self._conversation = _Conversation


class _Conversation(Conversation):
    server: GoogleSmtp
    ehlo_name = ""
    account: str | None = None

    async def obey(self, line: bytes) -> None:
        verb, _, argument = line.partition(b" ")
        match verb.upper():
            case b"EHLO":
                self.ehlo_name = argument.decode().lower()
            case b"MAIL" if not self._may_send():
                return await self.say(
                    "530-5.7.0 Authentication Required. - gsmtp\n530 5.7.0 see https://example.com/ - gsmtp"
                    if self.server.needs_login
                    else NO_RELAY
                )
        await super().obey(line)

    def _may_send(self) -> bool:
        return self.account is not None or (not self.server.needs_login and self.ehlo_name in self.server.domains)

    async def authenticate(self, line: bytes) -> None:
        if Stage.AUTH in self.server.script:
            await self.perform(self.server._next_action(Stage.AUTH, "235 2.7.0 Accepted"))
            return
        assert self.session.is_tls, "Google offers no AUTH before TLS"
        kind, _, initial = line.removeprefix(b"AUTH ").partition(b" ")
        assert kind == b"XOAUTH2"
        fields = base64.b64decode(initial).decode().split("\x01")
        account, token = fields[0].removeprefix("user="), fields[1].removeprefix("auth=Bearer ")
        assert fields[2:] == ["", ""]
        if self.server.google.allows(token, account):
            self.account = account
            self.server.logins.append(account)
            return await self.say("235 2.7.0 Accepted")
        challenge = json.dumps({"status": "400", "schemes": "Bearer", "scope": "https://mail.google.com/"})
        await self.say(f"334 {base64.b64encode(challenge.encode()).decode()}")
        # Nothing more comes until the challenge is answered.
        assert await self.read_line() == b""
        self.server.empty_answers += 1
        await self.say(NOT_ACCEPTED)
