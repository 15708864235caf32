"""The load tester: `python -m clients.loadtest` asks the services as people would, measures, and writes a report."""
