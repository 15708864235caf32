"""The rpcs about people's events: each method turns its request into a domain call and the result into its answer."""

from __future__ import annotations

import asyncio

from google.rpc import status_pb2

from marquee.errors import to_status
from marquee.v1 import live_features_pb2, live_features_pb2_grpc
from services.common.measures import BATCH_SIZE, stage
from services.common.requests import request_id_of
from services.user_encoder.checks import check_count, check_user_id
from services.user_encoder.deletion import delete_user
from services.user_encoder.event_export import export_page
from services.user_encoder.history import page_of
from services.user_encoder.recording import record
from services.user_encoder.stores.base import FeatureStore
from services.user_encoder.wire import Context, clock_ms, columns

MAX_RECORDED = 1000

_OK = status_pb2.Status()


class LiveFeaturesServicer(live_features_pb2_grpc.LiveFeaturesServiceServicer):
    """Answers marquee.v1.LiveFeaturesService."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        # Pages of an export take memory, so one is made at a time.
        self._exporting = asyncio.Lock()

    async def RecordEvents(  # noqa: N802
        self, request: live_features_pb2.RecordEventsRequest, context: Context
    ) -> live_features_pb2.RecordEventsResponse:
        """Records up to 1,000 events."""
        request_id = request_id_of(request.request_id)
        check_count(len(request.events), MAX_RECORDED, "events")
        BATCH_SIZE.observe(len(request.events))
        with stage("store"):
            refusals = await record(self._store, request.events, clock_ms())
        return live_features_pb2.RecordEventsResponse(
            statuses=[_OK if refusal is None else to_status(refusal) for refusal in refusals],
            recorded=refusals.count(None),
            request_id=request_id,
        )

    async def GetHistory(  # noqa: N802
        self, request: live_features_pb2.GetHistoryRequest, context: Context
    ) -> live_features_pb2.GetHistoryResponse:
        """Reads a page of a person's events."""
        request_id = request_id_of(request.request_id)
        check_user_id(request.user_id, "user_id")
        history = await self._store.read(request.user_id)
        page = page_of(history, request.user_id, request.page_size, request.page_token)
        return live_features_pb2.GetHistoryResponse(
            events=columns(page.events), next_page_token=page.next_token, total=page.total, request_id=request_id
        )

    async def DeleteUser(  # noqa: N802
        self, request: live_features_pb2.DeleteUserRequest, context: Context
    ) -> live_features_pb2.DeleteUserResponse:
        """Deletes everything about a person."""
        request_id = request_id_of(request.request_id)
        check_user_id(request.user_id, "user_id")
        deleted = await delete_user(self._store, request.user_id, clock_ms())
        return live_features_pb2.DeleteUserResponse(
            deleted_at_ms=deleted.at_ms, existed=deleted.existed, request_id=request_id
        )

    async def ExportEvents(  # noqa: N802
        self, request: live_features_pb2.ExportEventsRequest, context: Context
    ) -> live_features_pb2.ExportEventsResponse:
        """Reads a page of everybody's events."""
        request_id = request_id_of(request.request_id)
        async with self._exporting:
            page = await export_page(self._store, request.since_ms, request.page_size, request.page_token)
        return live_features_pb2.ExportEventsResponse(
            parquet=page.parquet,
            next_page_token=page.next_token,
            users=page.users,
            events=page.events,
            request_id=request_id,
        )
