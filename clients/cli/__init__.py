"""Marquee on the command line: `python -m clients.cli recommend|search|show|similar`."""
