"""How fast a run trains."""

from __future__ import annotations


class Clock:
    """Training time of each epoch; the first one, which pays for warming up, is kept apart."""

    def __init__(self) -> None:
        self.epochs: list[tuple[int, float]] = []
        self.graphs, self.seconds = 0, 0.0

    def add(self, graphs: int, seconds: float) -> None:
        """Count a step."""
        self.graphs += graphs
        self.seconds += seconds

    def end_epoch(self) -> tuple[float, float]:
        """(graphs/s, seconds) of the epoch that ends."""
        graphs, seconds = self.graphs, self.seconds
        self.epochs.append((graphs, seconds))
        self.graphs, self.seconds = 0, 0.0
        return graphs / max(seconds, 1e-9), seconds

    @property
    def rate(self) -> float:
        """graphs/s of the present epoch."""
        return self.graphs / max(self.seconds, 1e-9)

    def summary(self) -> dict[str, float]:
        """Steady-state throughput over all epochs but the first."""
        steady = self.epochs[1:] or self.epochs
        rates = sorted(graphs / max(seconds, 1e-9) for graphs, seconds in steady)
        return {
            "graphs_per_s": rates[len(rates) // 2],
            "seconds_per_epoch": sum(seconds for _, seconds in steady) / len(steady),
            "first_epoch_seconds": self.epochs[0][1],
        }
