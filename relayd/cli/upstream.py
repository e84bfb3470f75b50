"""`relayd upstream`."""

from typing import Annotated, Literal

from cyclopts import App, Parameter

from relayd.cli import output, quota, upstream_login, upstream_test, upstream_verdict
from relayd.cli.output import Column, Row, column
from relayd.cli.parameters import AsJson, Control, given
from relayd.cli.upstream_options import Options, body
from relayd.control.client import path_of

app = App(name="upstream")
app.command(quota.quota)
app.command(upstream_test.try_out, name="test")
app.command(upstream_verdict.verdict)
app.command(upstream_login.login)
app.command(upstream_login.set_service_account)


def _place(row: Row) -> str:
    if row["host"] is None:
        return str(row["directory"] or row["api_url"] or f"{row['provider']}'s API")
    return f"{row['host']}:{row['port']}" if row["port"] else str(row["host"])


def _state(row: Row) -> str:
    if row["paused_at"] or not row["is_active"]:
        return "paused" if row["paused_at"] else "inactive"
    if row["breaker"] != "closed":
        return "does not work"
    return f"failed {row['consecutive_failures']} times" if row["consecutive_failures"] else "active"


_COLUMNS = (
    column("name", whole=True),
    column("provider"),
    column("mode"),
    Column("to", _place),
    column("tls"),
    column("username"),
    Column("client", lambda row: row["client"] or "all"),
    Column("state", _state),
)
_DETAILS = (
    column("id"),
    *_COLUMNS,
    column("verify_certificate"),
    column("ca_file"),
    column("dialect"),
    column("has_password"),
    column("auth_mechanism"),
    column("allow_plaintext_auth"),
    column("has_api_key"),
    column("token_url"),
    column("authorization_url"),
    column("oauth_client_id"),
    column("has_oauth_client_secret"),
    column("oauth_account"),
    column("has_refresh_token"),
    column("google_service_account"),
    Column(
        "dead grants", lambda row: [f"{each['subject'] or 'its own'}: {each['error']}" for each in row["dead_grants"]]
    ),
    column("ehlo_name"),
    column("source_address"),
    column("max_connections"),
    column("max_recipients"),
    column("max_messages_per_connection"),
    column("idle_seconds"),
    column("on_uncertain"),
    column("sender_address"),
    column("sender_name"),
    column("is_verified", "verified"),
    column("caution"),
    column("spf_include"),
    column("signatures", "DKIM signatures"),
    column("paused_reason"),
    column("breaker"),
    column("breaker_reason"),
    column("breaker_retry_at", "tried again"),
    column("consecutive_failures", "failures in a row"),
    column("last_failure"),
    column("last_failed_at", "last failed"),
    column("created_at", "created"),
    column("updated_at", "changed"),
)


@app.command
def add(
    name: str,
    /,
    *,
    provider: Literal["smtp_relay", "capture", "google_workspace", "sendgrid"],
    client: str | None = None,
    options: Options | None = None,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Add an upstream.

    Parameters
    ----------
    provider
        smtp_relay hands mail to any server, google_workspace to Google, sendgrid to SendGrid; capture keeps it in a
        Maildir.
    client
        Only this client's mailboxes may use it.
    """
    said = {"name": name, "provider": provider, **given({"client": client}), **body(options)}
    reply = control.post(path_of("upstreams"), said)
    first = _what_it_lacks(reply.data)
    step = (
        f"{'then' if first else 'next'}, try it: "
        f"relayd upstream test {name} --to YOU@example.net --from noreply@example.com\n"
        f"then, who sends through it: relayd mailbox add noreply@example.com --upstream {name}"
    )
    step = f"{first}\n{step}" if first else step
    if reply.data["caution"]:
        step = f"mind: {reply.data['caution']}\n{step}"
    output.done(reply, f"upstream {name} added{_by_port(said, reply.data)}", as_json=as_json, next_step=step)


@app.command(name="list")
def list_(*, client: str | None = None, as_json: AsJson = False, control: Control) -> None:
    """List the upstreams.

    Parameters
    ----------
    client
        Only those that it may use.
    """
    reply = control.get(path_of("upstreams"), {"client": client})
    none = "no upstreams yet; add one: relayd upstream add NAME --provider smtp_relay --host HOST"
    output.items(reply, _COLUMNS, as_json=as_json, none=none)


@app.command
def show(name: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Show an upstream; never its password."""
    output.details(control.get(path_of("upstreams", name)), _DETAILS, as_json=as_json)


@app.command(name="set")
def set_(
    name: str,
    /,
    *,
    options: Options | None = None,
    no_login: Annotated[bool, Parameter(negative="")] = False,
    active: Annotated[bool | None, Parameter(negative="--inactive")] = None,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Change an upstream; what is not given stays.

    Parameters
    ----------
    no_login
        Forget its username and password.
    active
        An inactive upstream takes no mail; what is queued for it waits.
    """
    said = body(options) | given({"is_active": active})
    if no_login:
        said |= {"username": None, "password": None}
    reply = control.patch(path_of("upstreams", name), said)
    is_chosen_anew = bool({"mode", "port", "tls"} & said.keys())
    step = f"mind: {reply.data['caution']}" if reply.data["caution"] and is_chosen_anew else None
    output.done(reply, f"upstream {name} changed{_by_port(said, reply.data)}", as_json=as_json, next_step=step)


@app.command
def breaker(
    name: str,
    state: Literal["open", "close"],
    /,
    *,
    reason: str | None = None,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Stop using an upstream (open) until it is closed again, or use it at once (close).

    Parameters
    ----------
    reason
        Why, for whoever looks later.
    """
    reply = control.post(path_of("upstreams", name, "breaker"), {"state": state, **given({"reason": reason})})
    done = "is not used any more; its mail goes through its mailboxes' next" if state == "open" else "is used again"
    output.done(reply, f"upstream {name} {done}", as_json=as_json)


@app.command
def remove(name: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Remove an upstream that no mailbox sends through."""
    output.done(control.delete(path_of("upstreams", name)), f"upstream {name} removed", as_json=as_json)


def _by_port(said: Row, upstream: Row) -> str:
    """How it speaks TLS, where a port was named and TLS was not."""
    if said.get("port") is None or said.get("tls") is not None or upstream["tls"] is None:
        return ""
    return f": port {upstream['port']}, --tls {upstream['tls']}"


def _what_it_lacks(upstream: Row) -> str | None:
    """What has to be given before anything can be sent, None if nothing is missing."""
    name = upstream["name"]
    if upstream["provider"] == "sendgrid" and not upstream["has_api_key"]:
        return f"next, its key: relayd upstream set {name} --api-key-file FILE"
    has_grant = upstream["has_refresh_token"] or upstream["google_service_account"]
    if upstream["mode"] in ("xoauth2", "gmail_api") and not has_grant:
        client = "" if upstream["oauth_client_id"] else " (with --oauth-client-id and --oauth-client-secret-file set)"
        return (
            f"next: relayd upstream set-service-account {name} --file KEY.json, or relayd upstream login {name}{client}"
        )
    return None
