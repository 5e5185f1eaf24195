"""Comparison of runs in a browser: a self-contained file, a local server, or W&B."""
