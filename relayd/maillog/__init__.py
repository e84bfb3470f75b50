"""Event -> one line of the log. The log is for operators; what peers wrote in it is always quoted and escaped."""

from relayd.maillog.events import record
from relayd.maillog.output import Format, Level, configure

__all__ = ["Format", "Level", "configure", "record"]
