"""Benchmark runs as subprocesses, and tables from their results files."""
