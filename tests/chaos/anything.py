"""Draws anything that a caller may send: messages with any values in their fields, and bytes that are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from hypothesis import strategies as st

from marquee.v1 import catalog_pb2, live_features_pb2, retriever_pb2, user_encoder_pb2

# What a field may well hold, by its name: most of what is drawn otherwise gets no further than the first check.
Likely = Mapping[str, Sequence[Any]]

# By service, what declares its rpcs; the health is on the port of each.
FILES: Mapping[str, tuple[FileDescriptor, ...]] = {
    "user_encoder": (user_encoder_pb2.DESCRIPTOR, live_features_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR),
    "retriever": (retriever_pb2.DESCRIPTOR, catalog_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR),
}
_FEW, _LONG = 3, 64
_EDITS = 6


class Rpc(NamedTuple):
    """Is one rpc: its path on the wire, the type of its requests, and whether it answers with a stream."""

    path: str
    request: Descriptor
    streams: bool


class Sent(NamedTuple):
    """Is what is sent to an rpc."""

    rpc: Rpc
    request: bytes


def rpcs_of(service: str) -> list[Rpc]:
    """Lists the rpcs of a service, those of its health too."""
    methods = [
        method
        for file in FILES[service]
        for described in file.services_by_name.values()
        for method in described.methods
    ]
    return [_rpc(method) for method in methods]


def _rpc(method: MethodDescriptor) -> Rpc:
    path = f"/{method.containing_service.full_name}/{method.name}"
    return Rpc(path, method.input_type, method.server_streaming)


def any_message(service: str, likely: Likely) -> st.SearchStrategy[Sent]:
    """Draws an rpc and a request of its type with any values."""
    return st.one_of(
        [st.builds(Sent, st.just(rpc), _messages(rpc.request, likely).map(_written)) for rpc in rpcs_of(service)]
    )


@st.composite
def any_bytes(draw: st.DrawFn, service: str, likely: Likely) -> Sent:
    """Draws an rpc and bytes: a message that was cut, stretched and flipped here and there, or just bytes."""
    sent = draw(any_message(service, likely))
    if draw(st.integers(0, 3)) == 0:
        return sent._replace(request=draw(st.binary(max_size=_LONG)))
    request = sent.request
    for _ in range(draw(st.integers(1, _EDITS))):
        request = draw(_edited(request))
    return sent._replace(request=request)


@st.composite
def _edited(draw: st.DrawFn, data: bytes) -> bytes:
    at = draw(st.integers(0, len(data)))
    until = draw(st.integers(at, min(len(data), at + 8)))
    # What takes the place of some bytes: nothing, others, or the same twice.
    return data[:at] + draw(st.one_of(st.just(b""), st.binary(max_size=8), st.just(data[at:until] * 2))) + data[until:]


def _written(message: Message) -> bytes:
    return message.SerializeToString()


def _messages(of: Descriptor, likely: Likely) -> st.SearchStrategy[Message]:
    fields = {field.name: _field(field, likely) for field in of.fields}
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: _filled(of, values))


def _filled(of: Descriptor, values: Mapping[str, Any]) -> Message:
    message = GetMessageClass(of)()
    for name, value in values.items():
        if of.fields_by_name[name].is_repeated:
            getattr(message, name).extend(value)
        elif of.fields_by_name[name].message_type is not None:
            getattr(message, name).CopyFrom(value)
        else:
            setattr(message, name, value)
    return message


def _field(field: FieldDescriptor, likely: Likely) -> st.SearchStrategy[Any]:
    one = _one(field, likely)
    if field.name in likely:
        one = st.one_of(st.sampled_from(likely[field.name]), one)
    return st.lists(one, max_size=_FEW) if field.is_repeated else one


def _one(field: FieldDescriptor, likely: Likely) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return _messages(field.message_type, likely)
    if field.enum_type is not None:
        return _numbers(field.enum_type)
    return _SCALARS[field.type]


def _numbers(of: EnumDescriptor) -> st.SearchStrategy[int]:
    # A caller of a newer version may send one that has no name here.
    return st.one_of(st.sampled_from([value.number for value in of.values]), _int(32))


def _int(bits: int) -> st.SearchStrategy[int]:
    return st.one_of(st.integers(-1, 60), st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))


_SCALARS: Mapping[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=_LONG),
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.TYPE_INT32: _int(32),
    FieldDescriptor.TYPE_INT64: _int(64),
    FieldDescriptor.TYPE_STRING: st.text(st.characters(exclude_categories=["Cs"]), max_size=_LONG),
}
