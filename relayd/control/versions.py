"""What nodes of an older version would do wrong is not begun while one of them runs on the same database."""

from relayd.errors import Refusal
from relayd.store import nodes
from relayd.store.connection import Connection


async def check_all_know(connection: Connection, what: str) -> None:
    """Raises Refusal while a living node is of a version that knows neither routes nor lists nor how to look.

    It would put new mail where no route has a say, send past a breaker, and settle a doubt without looking.
    """
    _, silent = await nodes.living(connection)
    if silent:
        raise Refusal(
            f"{what} must wait: nodes on this database of an older version, or that only just start: {silent}",
            hint="upgrade them, or stop them, and repeat the command",
        )
