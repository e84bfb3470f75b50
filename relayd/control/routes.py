"""The table of everything that the control socket offers."""

from relayd.control import (
    audit,
    clients,
    credentials,
    domains,
    explain,
    mailboxes,
    messages,
    pause,
    pools,
    queue,
    queue_operations,
    status,
    upstreams,
    warm_up,
)
from relayd.control.route import Route

ROUTES: tuple[Route, ...] = (
    *clients.ROUTES,
    *domains.ROUTES,
    *mailboxes.ROUTES,
    *pools.ROUTES,
    *warm_up.ROUTES,
    *upstreams.ROUTES,
    *credentials.ROUTES,
    *queue.ROUTES,
    *queue_operations.ROUTES,
    *messages.ROUTES,
    *explain.ROUTES,
    *pause.ROUTES,
    *status.ROUTES,
    *audit.ROUTES,
)
