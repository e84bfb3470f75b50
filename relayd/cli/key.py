"""`relayd key`."""

import asyncio
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from relayd.cli import output
from relayd.config import secrets
from relayd.config.load import load
from relayd.daemon import keyring
from relayd.daemon.storage import open_database
from relayd.errors import Refusal
from relayd.seal import Seal, new_key

app = App(name="key", help="Sealing keys.")


@app.command
def new() -> None:
    """Print a new sealing key. Keep it in a file of mode 0600 that `seal.key_file` names, and a copy elsewhere."""
    output.write(new_key())


@app.command
def adopt(
    *,
    config: Annotated[Path, Parameter(help="The configuration file.")],
    former_is_lost: Annotated[bool, Parameter(negative="", help="Say that you know it.")] = False,
) -> None:
    """Go on with the configured sealing key where the former one is lost for good.

    What was sealed with the former key stays closed: set those passwords and tokens anew.
    """
    if not former_is_lost:
        raise Refusal(
            "what is sealed with the former key can then be opened by nobody",
            hint="look for a copy of it first; if there is none: --former-is-lost",
        )
    closed = asyncio.run(_adopt(config))
    output.write(f"relayd starts with this key now; {closed:,} secrets stay closed")
    if closed:
        output.hint("start relayd, then: relayd secrets rotate --dry-run lists them")


async def _adopt(config: Path) -> int:
    settings = load(config)
    current, older = secrets.sealing_keys(settings)
    database = await open_database(settings.database, secrets.database_password(settings), name="relayd key")
    try:
        return await keyring.adopt(database, Seal(current, older))
    finally:
        await database.close()
