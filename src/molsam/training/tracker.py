"""The protocol of everything that records a run."""

from __future__ import annotations

from typing import Any, Protocol


class Tracker(Protocol):
    """Receives the lines of metrics.jsonl, gradients.jsonl and sharpness.jsonl as they are made."""

    def start(self, config: dict[str, Any], state: dict[str, Any]) -> None:
        """Begin, or go on from `state` after a resume."""
        ...

    def log(self, record: dict[str, Any]) -> None:
        """One line of metrics.jsonl: `kind` is step or epoch."""
        ...

    def gradients(self, record: dict[str, Any]) -> None:
        """One line of gradients.jsonl."""
        ...

    def sharpness(self, record: dict[str, Any]) -> None:
        """One line of sharpness.jsonl."""
        ...

    def state(self) -> dict[str, Any]:
        """What a resume needs; plain values."""
        ...

    def finish(self, result: dict[str, Any] | None) -> None:
        """End; `result` is result.json, None if the run did not finish."""
        ...
