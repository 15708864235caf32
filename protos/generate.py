"""Generates the stubs of every proto into the package tree; `make protos` runs it with the pinned generator."""

import os
import sys
from importlib import resources
from pathlib import Path

import google.rpc
from grpc_tools import protoc

HERE = Path(__file__).parent
ROOT = HERE.parent


def include_folders() -> list[str]:
    """Lists where protos are imported from: ours, protobuf's own, google.rpc's."""
    common = Path(next(iter(google.rpc.__path__))).parent.parent
    return [str(HERE), str(resources.files("grpc_tools") / "_proto"), str(common)]


def proto_files() -> list[str]:
    """Lists our protos, ascending."""
    return sorted(str(path.relative_to(HERE)) for path in HERE.rglob("*.proto"))


def main() -> int:
    """Generates; returns protoc's exit code."""
    # The mypy plugin is a script of this environment.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    includes = [f"-I{folder}" for folder in include_folders()]
    outputs = [f"--{kind}_out={ROOT}" for kind in ("python", "pyi", "grpc_python", "mypy_grpc")]
    return int(protoc.main(["protoc", *includes, *outputs, *proto_files()]))


if __name__ == "__main__":
    sys.exit(main())
