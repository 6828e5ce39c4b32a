"""All routes of the pack: each module's own, in one table."""

from __future__ import annotations

from ._route import Route, register
from ._routes_blocks import ROUTES as BLOCKS
from ._routes_conflicts import ROUTES as CONFLICTS
from ._routes_library import ROUTES as LIBRARY
from ._routes_rows import ROUTES as ROWS
from ._routes_training import ROUTES as TRAINING

ROUTES: tuple[Route, ...] = (*LIBRARY, *ROWS, *BLOCKS, *CONFLICTS, *TRAINING)


def add_routes() -> None:
    """Have the host serve them. Nothing else happens before the first request: no thread, no file."""
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is not None:  # a host without a server runs graphs all the same
        for route in ROUTES:
            register(route, server.routes)
