"""Trainings that are going on in this process, for pages that come late: what they were told last."""

from __future__ import annotations

import threading
from copy import deepcopy
from typing import Any

Json = dict[str, Any]

_changing = threading.Lock()
_now: dict[str, Json] = {}


def tell(message: Json) -> None:
    """Remember an event of ``_train_watcher``; the last one forgets its run."""
    kind, run = message["kind"], message["run"]
    with _changing:
        if kind == "ended":
            _now.pop(run, None)
            return
        known = _now.setdefault(
            run,
            {"prompt_id": None, "node": None, "stage": None, "progress": None, "notes": [], "warnings": []},
        )
        known |= {"prompt_id": message["prompt_id"], "node": message["node"]}
        rest = {key: value for key, value in message.items() if key not in ("prompt_id", "node", "run", "lora", "kind")}
        if kind == "stage":
            known["stage"] = rest
        elif kind == "progress":
            # The losses of all steps are in the run's loss.csv.
            known["progress"] = {key: value for key, value in rest.items() if key != "losses"}
        elif kind in ("note", "warning"):
            known[f"{kind}s"].append(rest["text"])


def live(run: str) -> Json | None:
    """What is known of a run that is going on; None for others."""
    with _changing:
        return deepcopy(_now.get(run))


def runs() -> list[str]:
    """Their names."""
    with _changing:
        return list(_now)
