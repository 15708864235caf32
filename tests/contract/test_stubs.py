"""The committed stubs are those of the protos: compared by what they mean, as every generator writes another text."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import grpc
import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message
from packaging.requirements import Requirement
from packaging.version import Version

from tests.contract.compiled import ROOT, our_files

PROTOS = sorted(str(path.relative_to(ROOT / "protos")) for path in (ROOT / "protos").rglob("*.proto"))
KINDS = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")
# What grpcio-tools 1.76.0 writes; `make protos` pins it. Code of 7.x would refuse protobuf 6.
GENERATOR, GENCODE = Version("1.76.0"), Version("6.31.1")


class Call(NamedTuple):
    """Is one rpc as generated code has it; `message` is what that side reads."""

    path: str
    kind: str
    message: str


def test_every_proto_has_its_stubs_and_every_stub_its_proto() -> None:
    expected = {proto.removesuffix(".proto") + kind for proto in PROTOS for kind in KINDS}
    found = {str(path.relative_to(ROOT)) for path in (ROOT / "marquee").rglob("*_pb2*") if path.suffix != ".pyc"}
    assert found == expected, "run `make protos`, and remove the stubs of protos that are gone"


def test_every_proto_is_compiled(compiled: FileDescriptorSet) -> None:
    assert [file.name for file in our_files(compiled)] == PROTOS


@pytest.mark.parametrize("proto", PROTOS)
def test_a_stub_describes_what_its_proto_says(compiled: FileDescriptorSet, proto: str) -> None:
    assert committed(proto) == proto_of(compiled, proto), f"{proto} was changed after its stubs; run `make protos`"


@pytest.mark.parametrize("proto", PROTOS)
def test_the_grpc_stubs_call_what_the_proto_says(compiled: FileDescriptorSet, proto: str) -> None:
    file = proto_of(compiled, proto)
    module = importlib.import_module(module_of(proto) + "_grpc")
    channel, server = _Channel(), _Server()
    for service in file.service:
        getattr(module, f"{service.name}Stub")(channel)
        servicer = getattr(module, f"{service.name}Servicer")()
        getattr(module, f"add_{service.name}Servicer_to_server")(servicer, server)
    assert channel.calls == expected_calls(file, "output_type")
    assert server.calls == expected_calls(file, "input_type")
    stubs = [name for name in vars(module) if name.endswith("Stub")]
    assert sorted(stubs) == sorted(f"{service.name}Stub" for service in file.service)


@pytest.mark.parametrize("proto", PROTOS)
def test_the_types_name_every_field(compiled: FileDescriptorSet, proto: str) -> None:
    file = proto_of(compiled, proto)
    tree = ast.parse((ROOT / proto.replace(".proto", "_pb2.pyi")).read_text())
    assert typed_fields(tree.body) == {message.name: fields(message) for message in file.message_type}


@pytest.mark.parametrize("proto", PROTOS)
def test_the_stubs_were_made_by_the_pinned_generator(proto: str) -> None:
    stem = ROOT / proto.removesuffix(".proto")
    messages = Path(f"{stem}_pb2.py").read_text()
    services = Path(f"{stem}_pb2_grpc.py").read_text()
    assert re.findall(r"^# Protobuf Python Version: (.+)$", messages, re.M) == [str(GENCODE)]
    assert re.findall(r"^GRPC_GENERATED_VERSION = '(.+)'$", services, re.M) == [str(GENERATOR)]


def test_the_pinned_generator_is_the_oldest_that_the_package_runs_on() -> None:
    pins = [Requirement(line) for line in (ROOT / "protos/requirements.txt").read_text().splitlines() if line[0] != "#"]
    assert [str(pin.specifier) for pin in pins if pin.name == "grpcio-tools"] == [f"=={GENERATOR}"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = {need.name: need.specifier for need in map(Requirement, project["dependencies"])}
    assert min(Version(bound.version) for bound in needs["grpcio"] if bound.operator == ">=") >= GENERATOR
    assert min(Version(bound.version) for bound in needs["protobuf"] if bound.operator == ">=") >= GENCODE
    # Protobuf runs the code of its own major version and of the one before.
    assert not needs["protobuf"].contains(f"{GENCODE.major + 2}.0.0")


def test_a_drifted_stub_is_found(compiled: FileDescriptorSet) -> None:
    changed = FileDescriptorSet.FromString(compiled.SerializeToString())
    catalog = next(file for file in changed.file if file.name == "marquee/v1/catalog.proto")
    catalog.message_type[0].field[0].number = 99
    assert committed(catalog.name) != proto_of(changed, catalog.name)


def module_of(proto: str) -> str:
    return proto.removesuffix(".proto").replace("/", ".") + "_pb2"


def committed(proto: str) -> FileDescriptorProto:
    described = FileDescriptorProto()
    importlib.import_module(module_of(proto)).DESCRIPTOR.CopyToProto(described)
    return described


def proto_of(compiled: FileDescriptorSet, proto: str) -> FileDescriptorProto:
    """Takes a compiled file as a stub has it: without the JSON names that follow from the names."""
    file = FileDescriptorProto()
    file.CopyFrom(next(file for file in compiled.file if file.name == proto))
    waiting = list(file.message_type)
    while waiting:
        message = waiting.pop()
        waiting += message.nested_type
        for field in message.field:
            if field.json_name == re.sub("_(.)", lambda match: match[1].upper(), field.name):
                field.ClearField("json_name")
    return file


class _Channel:
    """Notes what a stub calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __getattr__(self, kind: str) -> Callable[..., None]:
        def note(path: str, *, response_deserializer: Callable[[bytes], Message], **rest: object) -> None:
            self.calls.append(Call(path, kind, response_deserializer(b"").DESCRIPTOR.full_name))

        return note


class _Server:
    """Notes what a servicer is registered for."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Takes the same once more."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        for name, handler in handlers.items():
            assert handler.request_deserializer is not None
            kind = streaming(handler.request_streaming, handler.response_streaming)
            asked: Message = handler.request_deserializer(b"")
            self.calls.append(Call(f"/{service}/{name}", kind, asked.DESCRIPTOR.full_name))


def streaming(asks: bool, answers: bool) -> str:
    return f"{'stream' if asks else 'unary'}_{'stream' if answers else 'unary'}"


def expected_calls(file: FileDescriptorProto, side: Literal["input_type", "output_type"]) -> list[Call]:
    return [
        Call(
            f"/{file.package}.{service.name}/{rpc.name}",
            streaming(rpc.client_streaming, rpc.server_streaming),
            str(getattr(rpc, side)).lstrip("."),
        )
        for service in file.service
        for rpc in service.method
    ]


def fields(message: DescriptorProto) -> set[str]:
    return {field.name for field in message.field}


def typed_fields(body: list[ast.stmt]) -> dict[str, set[str]]:
    """Reads the classes of messages, and the fields that each is annotated with."""
    classes = [
        node for node in body if isinstance(node, ast.ClassDef) and ast.unparse(node.bases[0]).endswith("Message")
    ]
    return {
        node.name: {
            ast.unparse(line.target)
            for line in node.body
            if isinstance(line, ast.AnnAssign) and "ClassVar" not in ast.unparse(line.annotation)
        }
        for node in classes
    }
