"""What mends a step that failed: a table, in which the first line that fits speaks."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """What a cure may name. Nothing secret."""

    upstream: str
    host: str
    port: int | None
    ehlo_name: str = ""
    sender: str = ""
    recipient: str = ""
    source_address: str | None = None


@dataclass(frozen=True, slots=True)
class _Cure:
    """`codes` begin the reply's code; `pattern` is searched in the text. What is left out fits everything."""

    step: str
    text: str
    codes: tuple[str, ...] = ()
    pattern: str = ""


_SET = "relayd upstream set {upstream}"
_CURES = (
    _Cure(
        "dns", f"check the spelling ({_SET} --host HOST), and that this machine can look it up: getent hosts {{host}}"
    ),
    _Cure(
        "tcp",
        f"nothing listens there; 587 is usual with --tls starttls, 465 with implicit, 25 with none: {_SET} --port PORT",
        pattern="refused",
    ),
    _Cure(
        "tcp", "start the server whose socket it is, and see that relayd's user can reach it", pattern="No such file"
    ),
    _Cure("tcp", "let the user that runs relayd open that socket: ls -l {host}", pattern="Permission denied"),
    _Cure("tcp", f"the source address is none of this machine's: {_SET} --source-address ADDRESS", pattern="assign"),
    _Cure(
        "tcp", "a firewall is in the way, here or there; many networks close port 25 outwards: 587 is more often open"
    ),
    _Cure(
        "tls",
        f"if the port begins with TLS: {_SET} --tls implicit --port 465; --tls none does without, and sends no login",
        pattern="does not offer STARTTLS",
    ),
    _Cure("tls", f"connect by a name that the certificate has: {_SET} --host NAME", pattern=r"it is for|mismatch"),
    _Cure(
        "tls", "its operator has to renew it; or this machine's clock is wrong: date", pattern=r"expired|not yet valid"
    ),
    _Cure(
        "tls",
        f"if you know its authority: {_SET} --ca-file PATH; --no-verify-certificate trusts whoever answers",
        pattern=r"self.signed|issuer|certificate not accepted",
    ),
    _Cure("tls", f"{_SET} --ca-file PATH: a file that the relayd server can read", pattern="ca_file"),
    _Cure(
        "tls",
        f"{_SET} --client-certificate-file FILE --client-key-file FILE gives both anew",
        pattern="client certificate",
    ),
    _Cure(
        "tls",
        f"the port does not begin with TLS: {_SET} --tls starttls --port 587",
        pattern=r"WRONG_VERSION|record layer|PACKET_LENGTH|wrong version",
    ),
    _Cure(
        "tls",
        f"the server wants a certificate of ours: {_SET} --client-certificate-file FILE --client-key-file FILE",
        pattern=r"CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE|UNKNOWN_CA|BAD_CERTIFICATE",
    ),
    _Cure("tls", "the server must speak TLS 1.2 or newer; if it refuses for now, try again later"),
    _Cure("greeting", "the server is busy or does not want more connections: try again later", ("4",)),
    _Cure("greeting", "the server does not talk to this machine's address: ask its operator to let it in", ("5",)),
    _Cure("greeting", f"if the port begins with TLS: {_SET} --tls implicit", pattern=r"timed out|connection lost"),
    _Cure("greeting", "this is no SMTP server: check host and port"),
    _Cure("ehlo", "this is no SMTP server, or a broken one: check host and port", pattern="does not end"),
    _Cure("ehlo", f"it may not like the name {{ehlo_name}}: {_SET} --ehlo-name NAME, one that DNS knows"),
    _Cure(
        "auth",
        f"a token needs a server that is known: {_SET} --tls starttls or implicit",
        pattern="access token is not",
    ),
    _Cure(
        "auth",
        f"{_SET} --tls starttls or implicit; or --auth-mechanism CRAM-MD5, if the server offers it",
        pattern="without TLS|over opportunistic TLS",
    ),
    _Cure(
        "auth",
        f"the server may offer it under TLS only: {_SET} --tls starttls; if it needs no login: {_SET} --no-login",
        pattern="does not offer AUTH",
    ),
    _Cure("auth", f"name a mechanism that both speak: {_SET} --auth-mechanism NAME", pattern="relayd speaks"),
    _Cure(
        "auth",
        "do as it says, then try again; relayd upstream show {upstream} names dead grants",
        pattern=r"grant (?:is dead|yet)|gets no token|may speak for|not known any more|may not log in with its token",
    ),
    _Cure(
        "auth", "the token server has trouble, or cannot be reached from here: try again later", pattern="no token from"
    ),
    _Cure("auth", "log in with a token: relayd upstream login {upstream}", pattern="XOAUTH2"),
    _Cure("auth", "the server cannot check logins just now: try again later", ("4",)),
    _Cure("auth", f"the server wants TLS before a login: {_SET} --tls starttls", ("530", "538")),
    _Cure(
        "auth",
        f"it does not take this login: {_SET} --username NAME --password-file -; many providers want a password "
        "made for apps, or have to permit SMTP logins first",
        ("5",),
    ),
    _Cure("auth", "the server does not speak AUTH as it should; its log may say why"),
    _Cure("mail", f"it wants a login first: {_SET} --username NAME --password-file -", ("530",)),
    _Cure("mail", "this message's kind cannot be carried; addresses in ASCII can", pattern="SMTPUTF8"),
    _Cure("mail", "it does not let {sender} send here, or not now: try another --from, or have its operator permit it"),
    _Cure(
        "rcpt",
        f"it does not relay for us: log in ({_SET} --username NAME --password-file -), or have its operator let this "
        "machine's address in",
        ("5",),
        pattern=r"relay|not permitted|authenticat|5\.7\.",
    ),
    _Cure("rcpt", "it does not know {recipient}: try another --to", ("55",)),
    _Cure("rcpt", "it does not take mail for {recipient} just now: try again in some minutes", ("4",)),
    _Cure("data", "it does not take this message; its text, and its operator, say why", ("4", "5")),
    _Cure("data", "the message may have arrived all the same: look there"),
    _Cure("request", "the key or the grant is not taken; give another", ("401", "403")),
    _Cure("request", "the provider has trouble or too much to do: try again later", ("429", "5")),
)
_OTHERWISE = "the upstream's operator, or its log, may know more"


def cure(step: str, text: str, code: int | None, place: Place) -> str:
    """What to change, or whom to ask. `text` is what went wrong."""
    reply = "" if code is None else str(code)
    for each in _CURES:
        has_code = not each.codes or (reply != "" and reply.startswith(each.codes))
        if each.step == step and has_code and re.search(each.pattern, text, re.IGNORECASE):
            return each.text.format(
                upstream=place.upstream,
                host=place.host,
                ehlo_name=place.ehlo_name,
                sender=place.sender,
                recipient=place.recipient,
            )
    return _OTHERWISE
