"""The table of everything that the control socket offers."""

from relayd.control import clients, explain, messages, pause, queue, queue_operations, status
from relayd.control.route import Route

ROUTES: tuple[Route, ...] = (
    *clients.ROUTES,
    *queue.ROUTES,
    *queue_operations.ROUTES,
    *messages.ROUTES,
    *explain.ROUTES,
    *pause.ROUTES,
    *status.ROUTES,
)
