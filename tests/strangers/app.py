"""The honest app: `python -m tests.strangers.app PORT SECONDS LOGIN SECRET` prints what each message took, as JSON."""

import asyncio
import json
import smtplib
import sys
import time

RATE = 5.0
_MESSAGE = b"From: app@example.com\r\nSubject: honest\r\n\r\nHello\r\n"


def send(port: int, login: str, secret: str) -> float:
    """One message on a connection of its own; how long it took."""
    began = time.monotonic()
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.login(login, secret)
        client.sendmail("app@example.com", ["you@example.net"], _MESSAGE)
        return time.monotonic() - began


async def steady(port: int, login: str, secret: str, seconds: float) -> tuple[list[float], int]:
    """Messages at the rate, whatever the earlier ones do."""

    async def one(at: float) -> float:
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        return await asyncio.to_thread(send, port, login, secret)

    began = time.monotonic()
    times = [began + number / RATE for number in range(int(seconds * RATE))]
    results = await asyncio.gather(*(one(at) for at in times), return_exceptions=True)
    return [each for each in results if isinstance(each, float)], sum(not isinstance(each, float) for each in results)


if __name__ == "__main__":
    port, seconds, login, secret = sys.argv[1:]
    sys.stdout.write(json.dumps(asyncio.run(steady(int(port), login, secret, float(seconds)))))
