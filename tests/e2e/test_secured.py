"""The SDK against both services as they run outside of one's own machine: TLS, client certificates, keys."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from marquee.client import Event, EventKind, Recommender, Tls
from marquee.errors import PermissionDenied, Unauthenticated
from services.common.policy import Role
from tests.bundles import make_bundle
from tests.rigs import publish, service_process
from tests.secured import HOST, Files, certified, enroll

MOVIE = 1


def test_the_sdk_recommends_over_tls_with_a_key(tmp_path: Path) -> None:
    registry = publish(tmp_path / "registry", make_bundle(tmp_path / "bundle", movies=30)).root
    ca, callers = trustme.CA(), tmp_path / "callers"
    trusted, mine = tmp_path / "ca.pem", Files(tmp_path / "web.pem", tmp_path / "web.key")
    trusted.write_bytes(ca.cert_pem.bytes())
    mine.hold(ca.issue_cert("web.internal"))
    files = certified(tmp_path, ca.issue_cert(HOST))
    reader, recorder = enroll(callers, "web", Role.READER), enroll(callers, "tracker", Role.RECORDER)
    flags = ["--auth=keys", f"--callers={callers}", f"--tls-cert={files.cert}", f"--tls-key={files.key}"]
    flags += [f"--tls-client-ca={trusted}"]
    store = f"--store={tmp_path / 'features.sqlite'}"
    with (
        service_process("user_encoder", tmp_path, registry, *flags, store) as encoder,
        service_process("retriever", tmp_path, registry, *flags) as retriever,
    ):
        places = f"{HOST}:{encoder.port}", f"{HOST}:{retriever.port}"
        tls = Tls(ca=trusted, cert=mine.cert, key=mine.key)
        with Recommender(*places, api_key=recorder, tls=tls) as tracker:
            tracker.record("ada", [Event(MOVIE, EventKind.LIKED)])
            with pytest.raises(PermissionDenied, match=r"tracker may not call .*: it has the role recorder"):
                tracker.recommend("ada", k=3)
        with Recommender(*places, api_key=reader, tls=tls) as web:
            answer = web.recommend("ada", k=3)
            with pytest.raises(PermissionDenied, match="needs recorder"):
                web.record("ada", [Event(MOVIE, EventKind.LIKED)])
        with Recommender(*places, tls=tls) as nobody, pytest.raises(Unauthenticated, match="no key"):
            nobody.recommend("ada", k=3)
    assert len(list(answer)) == 3
    assert MOVIE not in [item.movie.movie_id for item in answer]
