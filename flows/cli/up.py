"""lyra up: start the local Prefect server."""

from __future__ import annotations

from flows.cli.output import AsJson, choose_json, console, print_json, styled, waiting


def up(as_json: AsJson = False) -> int:
    """Start the local Prefect server, so that batches can be scheduled and watched; `lyra run` does it by itself.

    Example: lyra up
    """
    choose_json(as_json)
    from flows.server import launch_server, wait_for_server
    from flows.settings import load_settings

    settings = load_settings()
    if settings.prefect_api_url is not None:
        document = {"api_url": settings.prefect_api_url, "started": False}
        text = f"PREFECT_API_URL is set: using {settings.prefect_api_url}; nothing was started"
    else:
        with waiting("starting the local Prefect server"):
            server = wait_for_server(launch_server(settings.home_path), settings.home_path)
        document = {
            "api_url": server.api_url,
            "ui_url": server.ui_url,
            "pid": server.pid,
            "started": True,
        }
        text = f"Prefect UI  {server.ui_url}\nfor other tools: export PREFECT_API_URL={server.api_url}"
    if as_json:
        print_json(document)
    else:
        for line in text.splitlines():
            console().print(styled(line))
    return 0
