"""The protos as the installed compiler reads them, and the contract that they make, written as a list.

python -m tests.contract.compiled        accepts a deliberate change: writes surface.txt anew
"""

from __future__ import annotations

import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

ROOT = Path(__file__).parents[2]
SURFACE = Path(__file__).parent / "surface.txt"
ACCEPT = "python -m tests.contract.compiled"


def compile_protos() -> FileDescriptorSet:
    """Compiles every proto of ours, with all that they import."""
    # What `make protos` compiles, and where it looks for imports.
    generate = runpy.run_path(str(ROOT / "protos" / "generate.py"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "protos.binpb"
        flags = [*(f"-I{include}" for include in generate["include_folders"]()), "--include_imports"]
        command = [sys.executable, "-m", "grpc_tools.protoc", *flags, f"--descriptor_set_out={out}"]
        done = subprocess.run([*command, *generate["proto_files"]()], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return FileDescriptorSet.FromString(out.read_bytes())


def our_files(compiled: FileDescriptorSet) -> list[FileDescriptorProto]:
    """Lists our files, ascending by name."""
    return sorted((file for file in compiled.file if file.name.startswith("marquee/")), key=lambda file: file.name)


def surface(compiled: FileDescriptorSet) -> str:
    """Writes the contract as a list, a line for each thing that a caller can depend on."""
    lines = []
    for file in our_files(compiled):
        lines += ["", f"file {file.name}"]
        lines += [_method(file.package, service.name, rpc) for service in file.service for rpc in service.method]
        for message in file.message_type:
            lines += _message(f"{file.package}.{message.name}", message)
        for enum in file.enum_type:
            lines += _enum(f"{file.package}.{enum.name}", enum)
    return "\n".join(lines[1:]) + "\n"


def _method(package: str, service: str, rpc: MethodDescriptorProto) -> str:
    asked = ("stream " if rpc.client_streaming else "") + rpc.input_type.lstrip(".")
    answered = ("stream " if rpc.server_streaming else "") + rpc.output_type.lstrip(".")
    return f"rpc {package}.{service}/{rpc.name}({asked}) returns ({answered})"


def _message(name: str, message: DescriptorProto) -> Iterator[str]:
    yield f"message {name}"
    for field in message.field:
        yield f"field {name}.{field.name} = {field.number} {_type(message, field)}"
    for taken in message.reserved_range:
        yield f"reserved {name} = {taken.start} to {taken.end - 1}"
    for gone in message.reserved_name:
        yield f"reserved {name}.{gone}"
    for nested in message.nested_type:
        yield from _message(f"{name}.{nested.name}", nested)
    for enum in message.enum_type:
        yield from _enum(f"{name}.{enum.name}", enum)


def _enum(name: str, enum: EnumDescriptorProto) -> Iterator[str]:
    yield f"enum {name}"
    for value in enum.value:
        yield f"value {name}.{value.name} = {value.number}"


def _type(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    kind = field.type_name.lstrip(".") or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {kind}"
    if field.proto3_optional:
        return f"optional {kind}"
    if field.HasField("oneof_index"):
        return f"{kind}, oneof {message.oneof_decl[field.oneof_index].name}"
    return kind


if __name__ == "__main__":
    SURFACE.write_text(surface(compile_protos()))
    print(f"wrote {SURFACE.relative_to(ROOT)}; commit it with the change of the protos")
