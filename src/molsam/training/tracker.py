"""Protocol of the trackers, which record a run."""

from __future__ import annotations

from typing import Any, Protocol


class Tracker(Protocol):
    """Receives the lines of metrics.jsonl, gradients.jsonl and sharpness.jsonl as they are produced."""

    def start(self, config: dict[str, Any], state: dict[str, Any]) -> None:
        """Start, or continue from `state` after a resume."""
        ...

    def log(self, record: dict[str, Any]) -> None:
        """Record a line of metrics.jsonl; its `kind` is step or epoch."""
        ...

    def gradients(self, record: dict[str, Any]) -> None:
        """Record a line of gradients.jsonl."""
        ...

    def sharpness(self, record: dict[str, Any]) -> None:
        """Record a line of sharpness.jsonl."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what a resume needs, as plain values."""
        ...

    def finish(self, result: dict[str, Any] | None) -> None:
        """Finish; `result` is the content of result.json, None if the run did not finish."""
        ...
