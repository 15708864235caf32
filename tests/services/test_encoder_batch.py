"""BatchEncode: every person of a batch gets what Encode would have given them alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from marquee.errors import SpaceNotLoaded, UserUnknown, from_status
from marquee.features import LIKED, RATED
from marquee.v1 import user_encoder_pb2
from tests.bundles import make_bundle
from tests.encoder_rigs import EncoderRig, Row, columns, encoder, recording, refused
from tests.rigs import publish

AS_OF = 1_700_000_000_000
DIMENSION = 16

PEOPLE = {
    "stored": ("ada", []),
    "unknown": ("nobody", []),
    "sent": ("", [Row(1, RATED, 5, AS_OF - 10), Row(4, LIKED, 0, AS_OF - 5)]),
    "both": ("ada", [Row(7, RATED, 0.5, AS_OF)]),
    "unknown movie": ("", [Row(2, LIKED, 0, AS_OF)]),
    "again": ("ada", []),
    "nothing": ("", []),
    "long": ("", [Row(1 + 3 * number, LIKED, 0, AS_OF - number) for number in range(30)]),
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("batch")
    publish(folder / "registry", make_bundle(folder / "bundle", dimension=DIMENSION))
    return folder / "registry"


@pytest.fixture
async def rig(registry: Path, tmp_path: Path) -> AsyncIterator[EncoderRig]:
    async with encoder(registry, tmp_path / "features.sqlite") as running:
        await running.features.RecordEvents(recording("ada", Row(10, RATED, 4, AS_OF - 99), Row(13, LIKED, 0, AS_OF)))
        yield running


def batch(*, cold: bool, space: str = "") -> user_encoder_pb2.BatchEncodeRequest:
    request = user_encoder_pb2.BatchEncodeRequest(as_of_ms=AS_OF, allow_cold_start=cold, space=space)
    for user_id, rows in PEOPLE.values():
        request.items.add(user_id=user_id, events=columns(*rows))
    return request


def alone(user_id: str, rows: list[Row], *, cold: bool) -> user_encoder_pb2.EncodeRequest:
    return user_encoder_pb2.EncodeRequest(user_id=user_id, events=columns(*rows), as_of_ms=AS_OF, allow_cold_start=cold)


async def test_each_gets_what_encode_gives(rig: EncoderRig) -> None:
    answer = await rig.users.BatchEncode(batch(cold=True))
    vectors_BD = np.frombuffer(answer.vectors, "<f4").reshape(len(PEOPLE), DIMENSION)
    assert answer.as_of_ms == AS_OF
    assert len(answer.request_id) == 32
    for vector, result, (user_id, rows) in zip(vectors_BD, answer.results, PEOPLE.values(), strict=True):
        one = await rig.users.Encode(alone(user_id, rows, cold=True))
        np.testing.assert_allclose(vector, np.frombuffer(one.vector, "<f4"), atol=1e-6)
        for name in ("source", "events_used", "events_unknown", "events_truncated", "newest_event_ms", "seen"):
            assert getattr(result, name) == getattr(one, name)
        assert not result.HasField("status")
        assert (answer.space, answer.bundle_id) == (one.space, one.bundle_id)


async def test_who_is_unknown_has_zeros_and_the_status_of_encode(rig: EncoderRig) -> None:
    answer = await rig.users.BatchEncode(batch(cold=False))
    vectors_BD = np.frombuffer(answer.vectors, "<f4").reshape(len(PEOPLE), DIMENSION)
    norms = dict(zip(PEOPLE, np.linalg.norm(vectors_BD, axis=1).round(4).tolist(), strict=True))
    assert norms == dict.fromkeys(PEOPLE, 1.0) | {"unknown": 0.0, "nothing": 0.0}
    for name, result in zip(PEOPLE, answer.results, strict=True):
        if name in ("unknown", "nothing"):
            user_id, rows = PEOPLE[name]
            error = from_status(result.status)
            assert isinstance(error, UserUnknown)
            assert error.message == (await refused(rig.users.Encode(alone(user_id, rows, cold=False)))).message
        else:
            assert not result.HasField("status")


async def test_a_batch_of_the_unknown_is_answered(rig: EncoderRig) -> None:
    request = user_encoder_pb2.BatchEncodeRequest(items=[user_encoder_pb2.BatchEncodeItem(user_id="nobody")] * 3)
    answer = await rig.users.BatchEncode(request)
    assert answer.vectors == bytes(3 * 4 * DIMENSION)
    assert [result.status.code for result in answer.results] == [5, 5, 5]


async def test_a_full_batch_keeps_its_order(rig: EncoderRig) -> None:
    movies = [1 + 3 * (number % 50) for number in range(1024)]
    request = user_encoder_pb2.BatchEncodeRequest(as_of_ms=AS_OF)
    for movie in movies:
        request.items.add(events=columns(Row(movie, LIKED, 0, AS_OF)))
    answer = await rig.users.BatchEncode(request)
    assert [np.frombuffer(result.seen, "<i8").tolist() for result in answer.results] == [[movie] for movie in movies]
    vectors_BD = np.frombuffer(answer.vectors, "<f4").reshape(1024, DIMENSION)
    np.testing.assert_allclose(vectors_BD[:50], vectors_BD[50:100], atol=1e-6)
    assert len(np.unique(vectors_BD[:50].round(4), axis=0)) == 50


async def test_a_space_that_is_not_loaded_fails_the_call(rig: EncoderRig) -> None:
    assert isinstance(await refused(rig.users.BatchEncode(batch(cold=True, space="f" * 64))), SpaceNotLoaded)
