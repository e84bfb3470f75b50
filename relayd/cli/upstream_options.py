"""What can be said of an upstream on the command line. Secrets come from files, never from arguments."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from relayd.cli.parameters import given
from relayd.config.secret_file import read_secret
from relayd.errors import RelaydError

File = Annotated[str, Parameter(allow_leading_hyphen=True)]

# Options that name a file whose text is sent, and what an error calls that text. These are one line each.
_LINES = {
    "password_file": "password",
    "api_key_file": "API key",
    "oauth_client_secret_file": "client secret",
    "refresh_token_file": "refresh token",
}
_TEXTS = {"client_certificate_file": "certificate", "client_key_file": "private key"}
_OPEN = {"client_certificate_file"}  # no secret


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    """What can be said of an upstream when it is added and later.

    Attributes
    ----------
    mode
        google_workspace: smtp-relay (by default), xoauth2 or gmail_api. sendgrid: smtp (by default) or api.
    dialect
        Whose replies it gives; by default told by its provider and host.
    host
        Where it connects; a path is a Unix socket.
    port
        By default 587 with starttls, 465 with implicit, 25 with none and opportunistic.
    tls
        By default implicit on port 465, else starttls. opportunistic takes what is offered and verifies nothing.
    ca_file
        Trust these certificates (a path on the server) instead of the system's.
    password_file
        A file with the password in it, or - for standard input.
    auth_mechanism
        By default the best that is offered.
    client_certificate_file
        A file with the certificate (PEM, its chain included) that relayd shows to the server.
    client_key_file
        A file with that certificate's private key, PEM without a passphrase.
    api_url
        Where the provider's API is, if not at its own address.
    api_key_file
        A file with the provider's API key in it, or - for standard input.
    token_url
        Where access tokens come from, if not from the provider's own address.
    authorization_url
        Where a login begins, if not at the provider's own address.
    oauth_client_secret_file
        A file with the OAuth client's secret in it, or - for standard input.
    oauth_account
        The account that a refresh token belongs to.
    refresh_token_file
        A file with a refresh token in it, or - for standard input; `relayd upstream login` gets one.
    allow_plaintext_auth
        Permit the password or token to cross the network without TLS, or to go to whoever answers opportunistic TLS.
    ehlo_name
        The name that relayd greets with; by default its host name.
    source_address
        The local address to connect from.
    max_connections
        At once, from each node.
    max_recipients
        In one transaction.
    idle_seconds
        How long an unused connection is kept.
    on_uncertain
        What to do when nobody can know whether a message was taken: send it again, or hold it.
    spf_include
        The domain that senders through it include in their SPF record, if that is not known of its provider.
    dkim
        Which DKIM signatures it accepts: all, one by RSA, or none. By default rsa for Amazon SES, all for others.
    directory
        The Maildir that capture delivers into, on the server.
    """

    mode: Literal["smtp-relay", "xoauth2", "gmail_api", "smtp", "api"] | None = None
    dialect: Literal["google", "sendgrid", "microsoft365", "ses", "postfix", "exim", "generic"] | None = None
    host: str | None = None
    port: int | None = None
    tls: Literal["none", "opportunistic", "starttls", "implicit"] | None = None
    verify_certificate: bool | None = None
    ca_file: str | None = None
    username: str | None = None
    password_file: File | None = None
    auth_mechanism: Literal["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2"] | None = None
    allow_plaintext_auth: bool | None = None
    client_certificate_file: File | None = None
    client_key_file: File | None = None
    api_url: str | None = None
    api_key_file: File | None = None
    token_url: str | None = None
    authorization_url: str | None = None
    oauth_client_id: str | None = None
    oauth_client_secret_file: File | None = None
    oauth_account: str | None = None
    refresh_token_file: File | None = None
    ehlo_name: str | None = None
    source_address: str | None = None
    max_connections: int | None = None
    max_recipients: int | None = None
    max_messages_per_connection: int | None = None
    idle_seconds: float | None = None
    on_uncertain: Literal["retry", "hold"] | None = None
    directory: str | None = None
    sender_address: str | None = None
    sender_name: str | None = None
    spf_include: str | None = None
    dkim: Literal["all", "rsa", "none"] | None = None


def body(options: Options | None) -> dict[str, Any]:
    """The options as the control socket takes them. Raises RelaydError for a file that cannot be read."""
    said = given(asdict(options)) if options else {}
    for option, what in (_LINES | _TEXTS).items():
        file = said.pop(option, None)
        if file is not None:
            text = read_text(file, what) if option in _OPEN else read_secret_text(file, what)
            said[option.removesuffix("_file")] = _line(text, file, what) if option in _LINES else text
    return said


def read_text(file: str, what: str) -> str:
    """The text of a file, or of standard input for `-`. Raises RelaydError, which calls it `what`."""
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise RelaydError(f"cannot read the {what} from {file}: {reason}") from None


def read_secret_text(file: str, what: str) -> str:
    """As read_text, of a file that holds a secret: one that everybody may open is refused."""
    if file == "-":
        return read_text(file, what)
    try:
        return read_secret(Path(file)).decode()
    except UnicodeDecodeError:
        reason = f"{file}: it is not text"
    except RelaydError as error:
        reason = str(error)
    raise RelaydError(f"cannot use the {what}: {reason}")


def _line(text: str, file: str, what: str) -> str:
    line = text.removesuffix("\n").removesuffix("\r")
    if not line:
        raise RelaydError(f"there is no {what} in {file}")
    return line
