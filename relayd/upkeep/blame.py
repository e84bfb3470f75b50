"""Tell a message that cannot be read from an inbox that cannot: another one can be read, or there is no other.

One that is not to blame is not passed: where nothing at all can be read, it waits until something can.
"""

from collections.abc import Awaitable, Callable, Sequence

from relayd.inbox.reading import Fresh, Inbox, InboxError, Unreadable


async def for_its_header(inbox: Inbox, may_go_on: Callable[[], bool]) -> bool:
    """Whether the message at which `fresh` has just failed is to blame. What is read for that is not given again."""
    is_alone = True
    while may_go_on():
        try:
            found, _ = await inbox.fresh(1)
        except Unreadable:
            is_alone = False
        except InboxError:
            return False
        else:
            return bool(found) or is_alone
    return False


async def for_its_content(
    read: Callable[[Fresh], Awaitable[bytes]], others: Sequence[Fresh], may_go_on: Callable[[], bool]
) -> bool:
    """Whether the message at which `read` has just failed is to blame, `others` being what it may read besides."""
    for other in others:
        if not may_go_on():
            return False
        try:
            await read(other)
        except Unreadable:
            continue
        except InboxError:
            return False
        return True
    return not others
