"""The table of everything that the control socket offers."""

from relayd.control import (
    audit,
    clients,
    credentials,
    domains,
    explain,
    forecast,
    limits,
    mailboxes,
    messages,
    pause,
    pools,
    queue,
    queue_operations,
    quotas,
    status,
    uncertain,
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
    *quotas.ROUTES,
    *credentials.ROUTES,
    *limits.ROUTES,
    *uncertain.ROUTES,  # before /v1/queue/{id}
    *queue.ROUTES,
    *queue_operations.ROUTES,
    *messages.ROUTES,
    *explain.ROUTES,
    *pause.ROUTES,
    *status.ROUTES,
    *audit.ROUTES,
)
