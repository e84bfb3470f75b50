"""The table of everything that the control socket offers."""

from relayd.control import audit, clients, credentials, domains, mailboxes, upstreams
from relayd.control.route import Route

ROUTES: tuple[Route, ...] = (
    *clients.ROUTES,
    *domains.ROUTES,
    *mailboxes.ROUTES,
    *upstreams.ROUTES,
    *credentials.ROUTES,
    *audit.ROUTES,
)
