"""The verbs that need to know nothing of who speaks."""

from relayd.mail.reply import Reply
from relayd.rules.outcome import Stage
from relayd.rules.session_events import Ending, Reason
from relayd.submission import replies
from relayd.submission.conversation import Conversation
from relayd.submission.stream import SessionOver


class PlainVerbs(Conversation):
    """RSET, QUIT, NOOP, and what is only answered."""

    async def smtp_RSET(self, argument: str) -> None:
        if argument:
            await self.refuse(Stage.EHLO, replies.NO_ARGUMENT, Reason.BAD_SYNTAX)
            return
        self.transaction = None
        await self.say(replies.OK)

    async def smtp_QUIT(self, argument: str) -> None:
        if argument:
            await self.refuse(Stage.EHLO, replies.NO_ARGUMENT, Reason.BAD_SYNTAX)
            return
        raise SessionOver(Ending.QUIT, replies.BYE)

    async def smtp_NOOP(self, argument: str) -> None:
        await self.say(replies.OK)

    async def smtp_VRFY(self, argument: str) -> None:
        await self.say(replies.CANNOT_VERIFY)

    async def smtp_EXPN(self, argument: str) -> None:
        await self.refuse(Stage.EHLO, replies.NOT_IMPLEMENTED, Reason.UNKNOWN_COMMAND)

    async def smtp_HELP(self, argument: str) -> None:
        await self.say(Reply(214, "2.0.0", "Commands: " + " ".join(sorted(self.verbs))))
