"""What can be said of a mailbox's inbox on the command line. Its password comes from a file, never from an argument."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from cyclopts import Parameter

from relayd.cli.parameters import given
from relayd.cli.upstream_options import File, read_text
from relayd.errors import RelaydError


@Parameter(name="*")
@dataclass(frozen=True)
class InboxOptions:
    """Where bounces and answers to a mailbox's mail are read.

    Attributes
    ----------
    reports
        imap (by default), gmail_api: with the grant of its upstream, or none: read no more.
    reports_imap_host
        The IMAP server of the mailbox itself; only bounces, complaints and answers to its mail are kept.
    reports_imap_port
        By default 993 with implicit, 143 with starttls.
    reports_username
        By default the mailbox's address.
    reports_password_file
        A file with the password; - is standard input.
    reports_tls
        implicit (by default) or starttls; the certificate is verified.
    reports_ca_file
        The CA's certificates, as the server sees the file; by default the system's.
    reports_folder
        By default INBOX.
    """

    reports: Literal["imap", "gmail_api", "none"] | None = None
    reports_imap_host: str | None = None
    reports_imap_port: int | None = None
    reports_username: str | None = None
    reports_password_file: File | None = None
    reports_tls: Literal["implicit", "starttls"] | None = None
    reports_ca_file: str | None = None
    reports_folder: str | None = None


def body(options: InboxOptions | None) -> dict[str, Any]:
    """The options as the control socket takes them; empty if none was given. Raises RelaydError for a file."""
    said = given(asdict(options)) if options else {}
    found = {name.removeprefix("reports_").removeprefix("imap_"): value for name, value in said.items()}
    if "reports" in found:
        found["kind"] = found.pop("reports")
    file = found.pop("password_file", None)
    if file is not None:
        found["password"] = read_text(file, "password").removesuffix("\n").removesuffix("\r")
        if not found["password"]:
            raise RelaydError(f"there is no password in {file}")
    return found
