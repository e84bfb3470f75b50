"""Everything that happens, as one union: whoever is handed an Event matches it whole."""

from relayd.rules.control_events import ControlEvent
from relayd.rules.grant_events import GrantEvent
from relayd.rules.relay_events import RelayEvent
from relayd.rules.report_events import ReportEvent
from relayd.rules.session_events import SessionEvent
from relayd.rules.upkeep_events import UpkeepEvent

Event = SessionEvent | RelayEvent | UpkeepEvent | ControlEvent | GrantEvent | ReportEvent
