"""Handler of `reload`: take the configuration file anew."""

from collections.abc import Sequence

from relayd.control.route import Context, Nothing, Route, View
from relayd.errors import Refusal, RelaydError


class ReloadView(View):
    """What a reload changed, by the names of settings, and what only a restart changes."""

    changed: Sequence[str]
    needs_restart: Sequence[str]


async def reload(context: Context, request: Nothing) -> ReloadView:
    """Answers once new workers serve with the new settings. Refused, nothing has changed."""
    if context.house.reload is None:
        raise Refusal("there is nothing to reload in development mode")
    try:
        done = await context.house.reload()
    except (RelaydError, OSError) as error:
        raise Refusal(
            f"reload refused, everything stays as it was: {error}",
            hint="correct the configuration file, try it with `relayd config check FILE`, then reload again",
        ) from error
    return ReloadView(changed=done.changed, needs_restart=done.needs_restart)


ROUTES = (Route("POST", "/v1/reload", reload, "Take the configuration file anew", Nothing, ReloadView),)
