"""The desktop client: `python -m clients.desktop` opens a window to find films, say what you think, and get a list."""
