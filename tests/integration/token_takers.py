"""A process that takes many tokens at once: from stdin a DSN, a sealing key and whom for; to stdout the tokens."""

import asyncio
import json
import sys
import time

from relayd.seal import Seal, parse_key
from relayd.store import upstreams
from relayd.store.pool import Database
from relayd.upstream.granting import token_source


async def take(dsn: str, key: str, subjects: list[str | None]) -> list[str]:
    database = await Database.open(dsn, max_size=2)
    async with database.connection() as connection:
        (record,) = await upstreams.living(connection)
    source = token_source(record, Seal(parse_key(key.encode())), database, lambda event: None, time.monotonic)
    tokens = await asyncio.gather(*(source.token(subject) for subject in subjects))
    await source.close()
    await database.close()
    return tokens


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(take(*json.load(sys.stdin)))))
