"""The routes of the library: which LoRAs there are, and what is known of each."""

from __future__ import annotations

from ._route import Route

ROUTES: tuple[Route, ...] = ()
