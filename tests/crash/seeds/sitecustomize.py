"""Python imports this by itself at its start, if it finds it: install the bug that RELAYD_SEED names."""

import os
import traceback

_SEED = os.environ.get("RELAYD_SEED")

if _SEED:
    try:
        from tests.crash.seeds.bugs import BUGS

        BUGS[_SEED]()
    except Exception as error:
        # Python would report it and go on, without the bug: a seed that no longer fits must not pass for one.
        traceback.print_exc()
        raise SystemExit(f"the seed {_SEED} cannot be planted") from error
