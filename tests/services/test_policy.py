"""Every rpc of the contract has one role, and nothing else has one."""

from __future__ import annotations

import ast
import inspect

import pytest
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection_pb2

from marquee.v1 import catalog_pb2, live_features_pb2, retriever_pb2, user_encoder_pb2
from services.common import policy
from services.common.callers import Caller
from services.common.policy import POLICY, Role, role_for

CONTRACT: list[FileDescriptor] = [
    module.DESCRIPTOR for module in (catalog_pb2, live_features_pb2, retriever_pb2, user_encoder_pb2, reflection_pb2)
]


def rpcs() -> list[str]:
    """Lists the paths of all rpcs that servers of Marquee may have, the health's apart."""
    services = [service for file in CONTRACT for service in file.services_by_name.values()]
    return [f"/{service.full_name}/{method.name}" for service in services for method in service.methods]


def test_every_rpc_has_a_role_and_every_role_an_rpc() -> None:
    assert len(rpcs()) > 15
    missing, gone = sorted(set(rpcs()) - POLICY.keys()), sorted(POLICY.keys() - set(rpcs()))
    assert not missing, f"say in services/common/policy.py who may call {', '.join(missing)}"
    assert not gone, f"services/common/policy.py names what is no rpc: {', '.join(gone)}"
    assert set(POLICY.values()) == set(Role)


def test_no_rpc_is_named_twice() -> None:
    names = [node.value for node in ast.walk(ast.parse(inspect.getsource(policy))) if isinstance(node, ast.Constant)]
    for path in rpcs():
        assert names.count(path.rpartition("/")[2]) == 1, path


def test_what_shows_moves_or_deletes_whole_histories_is_for_admins() -> None:
    admins = {path.rpartition("/")[2] for path, role in POLICY.items() if role is Role.ADMIN}
    assert admins == {"GetHistory", "DeleteUser", "ExportEvents", "ServerReflectionInfo"}
    assert role_for("/marquee.v1.LiveFeaturesService/RecordEvents") is Role.RECORDER


@pytest.mark.parametrize(
    "method", ["/marquee.v1.RetrieverService/Purge", "/marquee.v1.retrieverservice/Search", "Search", "", "/"]
)
def test_what_is_not_in_the_table_nobody_may_call(method: str) -> None:
    assert role_for(method) is None
    assert not Caller("root", frozenset(Role), None).may(role_for(method))
