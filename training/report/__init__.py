"""The report: trains and measures sibling models of every protocol, and writes what came of it as one page.

`study` is what the page shows; `runs` makes the runs, `gather` turns them into a study, `page` writes it.
"""
