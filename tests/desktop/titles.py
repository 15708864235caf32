"""A small catalogue whose first films have odd titles."""

from __future__ import annotations

from pathlib import Path

import pytest

from marquee.bundle.format import Bundle
from marquee.movies import MovieRecord
from tests import bundles

ODD = ("Smile 😀 Again 🎬", "שלום עולם", "العربية الفيلم", "“Quoted” & <b>bold</b> {brace} $x [y]", "東京物語")


def odd_titles(folder: Path) -> Bundle:
    """Makes a bundle of 60 films, the first of them with odd titles."""
    plain = bundles.movie_record

    def record(number: int) -> MovieRecord:
        movie = plain(number)
        return movie._replace(title=ODD[number]) if number < len(ODD) else movie

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundles, "movie_record", record)
        return bundles.make_bundle(folder, movies=60)
