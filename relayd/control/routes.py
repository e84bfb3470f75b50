"""The table of everything that the control socket offers."""

from relayd.control import (
    audit,
    clients,
    credentials,
    domains,
    explain,
    forecast,
    limits,
    mail_routes,
    mailboxes,
    messages,
    pause,
    pools,
    queue,
    queue_operations,
    quotas,
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
    *forecast.ROUTES,
    *upstreams.ROUTES,
    *mail_routes.ROUTES,
    *quotas.ROUTES,
    *credentials.ROUTES,
    *limits.ROUTES,
    *queue.ROUTES,
    *queue_operations.ROUTES,
    *messages.ROUTES,
    *explain.ROUTES,
    *pause.ROUTES,
    *status.ROUTES,
    *audit.ROUTES,
)
