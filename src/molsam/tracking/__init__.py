"""Recording of a run's numbers while it trains."""
