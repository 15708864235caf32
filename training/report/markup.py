"""HTML from plain functions: whatever is not `Html` already is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

_EMPTY = frozenset(("meta", "br", "img", "col"))


class Html(str):
    """Is text that is HTML already."""

    __slots__ = ()


def element(tag: str, /, *children: str, **attributes: str) -> Html:
    """Writes an element; a trailing `_` of an attribute's name is dropped, an inner one becomes `-`."""
    head = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items() if value
    )
    if tag in _EMPTY:
        return Html(f"<{tag}{head}>")
    return Html(f"<{tag}{head}>{joined(children)}</{tag}>")


def joined(parts: Iterable[str]) -> Html:
    """Joins text and HTML, escaping the text."""
    return Html("".join(part if isinstance(part, Html) else html.escape(part, quote=False) for part in parts))


def paragraph(*children: str, class_: str = "") -> Html:
    """Writes a paragraph."""
    return element("p", *children, class_=class_)


def section(anchor: str, title: str, *children: str) -> Html:
    """Writes a section under a second-level heading that can be linked to."""
    return element(
        "section", element("h2", title, id=f"{anchor}-title"), *children, id=anchor, aria_labelledby=f"{anchor}-title"
    )


def details(summary: str, *children: str) -> Html:
    """Writes what is folded away at first."""
    return element("details", element("summary", summary), *children)


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> Html:
    """Writes a table that scrolls inside its box; columns after the first `text_columns` hold numbers."""
    kinds = ["text" if place < text_columns else "number" for place in range(len(head))]
    headings = [element("th", cell, scope="col", class_=kind) for cell, kind in zip(head, kinds, strict=True)]
    body = [
        element(
            "tr",
            element("th", row[0], scope="row", class_=kinds[0]),
            *(element("td", cell, class_=kind) for cell, kind in zip(row[1:], kinds[1:], strict=True)),
        )
        for row in rows
    ]
    whole = element(
        "table",
        element("caption", element("span", caption)),
        element("thead", element("tr", *headings)),
        element("tbody", *body),
    )
    return element("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)
