"""Marquee on the command line: `python -m clients.cli recommend|search|why|doctor`, and `--help` for the rest."""
