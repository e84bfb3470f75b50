"""Event -> one line of the log. The log is for operators; what peers wrote in it is always quoted and escaped."""

from relayd.maillog.events import record
from relayd.maillog.output import Format, Level, configure
from relayd.maillog.peer_quota import PeerQuota
from relayd.maillog.writer import LineWriter, is_journal

__all__ = ["Format", "Level", "LineWriter", "PeerQuota", "configure", "is_journal", "record"]
