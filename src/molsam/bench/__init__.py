"""Benchmarks: throughput, and its distance to the machine's limit."""
