"""Event -> Prometheus. Workers count in shared files; the supervisor adds them up for the page."""

from relayd.metrics.files import forget_worker, prepare_directory
from relayd.metrics.meter import Meter, own_meter, record
from relayd.metrics.node import NodeState
from relayd.metrics.page import CONTENT_TYPE, MetricsPage

__all__ = [
    "CONTENT_TYPE",
    "Meter",
    "MetricsPage",
    "NodeState",
    "forget_worker",
    "own_meter",
    "prepare_directory",
    "record",
]
