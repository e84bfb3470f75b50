"""The table of everything that the control socket offers."""

from relayd.control import clients
from relayd.control.route import Route

ROUTES: tuple[Route, ...] = (*clients.ROUTES,)
