"""Time zones, as Postgres knows them: it is Postgres that turns the windows."""

from relayd.errors import BadValue
from relayd.store.connection import Connection

# Reads the server's files of time zones: tens of milliseconds.
IS_TIME_ZONE = "SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = $1)"


async def check(connection: Connection, time_zone: str) -> None:
    """Raises BadValue for a zone that IANA does not know."""
    # Postgres would also take "XYZ5", five hours behind, which is never what was meant.
    if time_zone != "UTC" and not await connection.fetchval(IS_TIME_ZONE, time_zone):
        raise BadValue(f"there is no time zone {time_zone}", hint="write it as IANA does: Europe/Berlin, UTC")
