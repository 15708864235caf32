"""Marquee as a web page: `python -m clients.web`; docs/web.md says how to run it."""
