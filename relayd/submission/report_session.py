"""What strangers may do in a session: hand in a report. And nobody may do both in one transaction."""

from relayd.intake.reports import IncomingReport, ReportDoor
from relayd.intake.return_paths import ReportAddress
from relayd.mail.reply import Reply
from relayd.rules.session_events import Reason
from relayd.submission.path import Fault, Recipient
from relayd.submission.service import Service
from relayd.submission.transaction import Transaction

__all__ = ["IncomingReport", "ReportDoor", "place"]

# A report is about one message: each address costs a copy of it.
MAX_REPORT_ADDRESSES = 10
TOO_MANY = Reply(452, "4.5.3", "Too many recipients of a report")
ONE_KIND = Reply(452, "4.5.3", "Reports and other mail need transactions of their own")


async def place(service: Service, transaction: Transaction, recipient: Recipient) -> Fault | None:
    """Add a recipient to the kind of transaction that it belongs to, or say why it cannot be. Raises StoreUnavailable.

    A sender that MAIL would have refused may write to report addresses alone; its refusal comes with any other one.
    """
    reports, forward_path = service.reports, recipient.forward_path
    found = await reports.check_recipient(forward_path) if reports is not None else None
    if isinstance(found, Reply):
        return Fault(found, Reason.POLICY, f"<{forward_path}> {found.text}")
    if isinstance(found, ReportAddress):
        if transaction.recipients:
            return Fault(ONE_KIND, Reason.POLICY, f"<{forward_path}>")
        if len(transaction.report_addresses) >= MAX_REPORT_ADDRESSES:
            return Fault(TOO_MANY, Reason.TOO_MANY_RECIPIENTS, f"<{forward_path}>")
        transaction.add_report(found)
        return None
    if transaction.report_addresses:
        return Fault(ONE_KIND, Reason.POLICY, f"<{forward_path}>")
    if transaction.refusal is not None:
        return transaction.refusal
    assert transaction.identity is not None, "who may not send has been refused"
    suppressed = await service.door.check_recipient(transaction.identity, forward_path)
    if suppressed is not None:
        return Fault(suppressed, Reason.SUPPRESSED, "")
    transaction.add(recipient)
    return None
