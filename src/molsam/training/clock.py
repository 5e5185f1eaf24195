"""Throughput of a run."""

from __future__ import annotations

from statistics import median


class Clock:
    """Training time of each epoch. The first one, which includes the warm-up, is reported separately."""

    def __init__(self) -> None:
        self.epochs: list[tuple[int, float]] = []
        self.graphs, self.seconds = 0, 0.0

    def add(self, graphs: int, seconds: float) -> None:
        """Add a step."""
        self.graphs += graphs
        self.seconds += seconds

    def end_epoch(self) -> tuple[float, float]:
        """End an epoch; return its graphs/s and seconds."""
        graphs, seconds = self.graphs, self.seconds
        self.epochs.append((graphs, seconds))
        self.graphs, self.seconds = 0, 0.0
        return graphs / max(seconds, 1e-9), seconds

    @property
    def rate(self) -> float:
        """graphs/s of the current epoch."""
        return self.graphs / max(self.seconds, 1e-9)

    def summary(self) -> dict[str, float]:
        """Return the steady-state throughput over all epochs but the first, and the first one's seconds.

        Medians, because a machine may sleep or a process may be stopped during an epoch.
        """
        steady = self.epochs[1:] or self.epochs
        rates = sorted(graphs / max(seconds, 1e-9) for graphs, seconds in steady)
        return {
            "graphs_per_s": rates[len(rates) // 2],
            "seconds_per_epoch": median(seconds for _, seconds in steady),
            "first_epoch_seconds": self.epochs[0][1],
        }
