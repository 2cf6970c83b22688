"""lyra down: stop what `lyra run` and `lyra up` started."""

from __future__ import annotations

from flows.cli.output import AsJson, choose_json, console, print_json


def down(as_json: AsJson = False) -> int:
    """Stop the local Prefect server; worlds, catalog and run history stay.

    Example: lyra down
    """
    choose_json(as_json)
    from flows.server import stop_server
    from flows.settings import load_settings

    stopped = stop_server(load_settings().home_path)
    if as_json:
        print_json({"stopped": stopped})
    else:
        console().print("stopped the local Prefect server" if stopped else "nothing was running")
    return 0
