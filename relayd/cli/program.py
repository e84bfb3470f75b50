"""From argv to a command, and from its failure to one line on stderr and an exit code."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter

from relayd import __version__
from relayd.cli import output
from relayd.control.client import ControlClient, ServerRefused, socket_candidates
from relayd.errors import Refusal, RelaydError
from relayd.undumpable import close_memory

_FAILED = 1
_USAGE = 2
_INTERRUPTED = 130

# Each is `app` of relayd/cli/NOUN.py, imported when it is asked for: `relayd client list` loads nothing of the others.
NOUNS = {
    "dev": "Try relayd on this machine: embedded Postgres, no login, mail is captured.",
    "serve": "Serve mail as a configuration file says.",
    "config": "Check a configuration file.",
    "migrate": "Bring the database's tables to this version, or back.",
    "key": "Make sealing keys.",
    "secrets": "Under which keys secrets are sealed; seal them anew under another.",
    "client": "Tenants: all domains, mailboxes and credentials belong to one.",
    "domain": "Sending domains, their DKIM keys and the DNS records to publish.",
    "mailbox": "Sending accounts, each with a daily limit and an upstream.",
    "pool": "Mailboxes that send in each other's place.",
    "warmup": "Let a new mailbox's limit grow day by day.",
    "upstream": "Where mail goes next.",
    "doctor": "Look what is wrong with a provider, and what mends it.",
    "route": "Send some mail another way than its mailbox says.",
    "credential": "SMTP logins of apps.",
    "limits": "What may leave: every limit, its use, and when it turns.",
    "queue": "Queue entries: list, show, hold, release, retry, cancel.",
    "message": "Messages: find, show, export, resend.",
    "suppression": "Who gets no more mail: list, add, remove, import, export.",
    "event": "What became of mail, for programs to read.",
    "report": "Bounces, complaints and answers that came back.",
    "explain": "Where a message is, why it waits, when it goes.",
    "pause": "Stop sending: everything, a mailbox, an upstream.",
    "resume": "Start sending again.",
    "reload": "Take the configuration file anew.",
    "status": "How relayd stands.",
    "audit": "Who changed what.",
}


def main() -> NoReturn:
    """Run argv. Exit code 0, 1 for a failure told on stderr, 2 for a command line that makes no sense."""
    close_memory()
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        result = program().meta(list(argv), exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        return output.fail(_usage_error(error), _usage_help(error), code=_USAGE)
    except (ServerRefused, Refusal) as error:
        return output.fail(str(error), error.hint, code=_FAILED)
    except RelaydError as error:
        return output.fail(str(error), None, code=_FAILED)
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    return result if isinstance(result, int) else 0


def _usage_error(error: CycloptsError) -> str:
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return f"{error.argument.name} is required"
    return str(error)


def _usage_help(error: CycloptsError) -> str:
    command = " ".join(error.command_chain or ())
    return f"relayd {command} --help shows how" if command else "relayd --help lists the commands"


def program() -> App:
    """The whole command line."""
    app = App(name="relayd", help="A self-hosted SMTP relay.", version=__version__)
    for noun, summary in NOUNS.items():
        app.command(f"relayd.cli.{noun}:app", name=noun, help=summary)

    @app.meta.default
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        socket: Annotated[Path | None, Parameter(help="Which relayd to ask: its socket. Also RELAYD_SOCKET.")] = None,
    ) -> object:
        command, bound, ignored = app.parse_args(tokens, exit_on_error=False, print_error=False)
        for name, kind in ignored.items():
            if kind is ControlClient:
                bound.arguments[name] = ControlClient((socket,) if socket else socket_candidates())
        return command(*bound.args, **bound.kwargs)

    return app
