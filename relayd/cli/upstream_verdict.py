"""`relayd upstream verdict`."""

from typing import Annotated, Literal

from cyclopts import Parameter

from relayd.cli import output
from relayd.cli.output import Row
from relayd.cli.parameters import AsJson, Control
from relayd.control.client import path_of


def verdict(
    name: str,
    reply: str,
    /,
    *,
    stage: Literal["connect", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "dot"] | None = None,
    accepted: Annotated[bool, Parameter(negative="")] = False,
    recipient: str | None = None,
    http: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Say what a reply of an upstream means, by which rule, and what becomes of the mail.

    Parameters
    ----------
    reply
        As the log has it: '550 5.4.5 Daily limit exceeded'.
    stage
        Where it came; by default at every stage.
    accepted
        The transaction had an accepted recipient already.
    recipient
        The address that it refused; a reply that names another one is not about it.
    http
        It is an HTTP answer: '429 {"error": …}'.
    """
    query = {
        "reply": reply,
        "stage": stage,
        "accepted": accepted or None,
        "recipient": recipient,
        "http": http or None,
    }
    found = control.get(path_of("upstreams", name, "verdict"), query)
    if as_json:
        return output.write(found.text)
    output.write(f"upstream {found.data['upstream']}, dialect {found.data['dialect']}")
    for row in found.data["items"]:
        scope = f", {row['scope']}" if row["scope"] else ""
        output.heading(f"at {', '.join(row['stages'])}: {row['outcome']}{scope}")
        output.write(f"  {output.readable(row['effect'])}")
        output.write(f"  {output.readable(_rule(row['rule'], found.data['dialect']))}")


def _rule(rule: Row | None, dialect: str) -> str:
    if rule is None:
        return "no rule speaks of it there: it is taken for a broken connection"
    whose = {"operator": "rule of your configuration", "dialect": f"rule of {dialect}", "generic": "generic rule"}
    asks = [
        *(f"{name} {' '.join(rule[key])}" for name, key in (("codes", "codes"), ("http", "http")) if rule[key]),
        *(f"{key} {rule[key]}" for key in ("enhanced", "reason") if rule[key]),
        *([f"text “{rule['text']}”"] if rule["text"] else []),
        *(["after an accepted recipient"] if rule["needs_accepted"] else []),
        *(["with the mailbox's own login"] if rule["needs_own_login"] else []),
    ]
    said = f" ({', '.join(asks)})" if asks else ""
    return f"{whose[rule['origin']]}{said}" + (f": {rule['note']}" if rule["note"] else "")
