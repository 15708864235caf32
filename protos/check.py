"""Lints the protos with buf; `make lint` runs it."""

import subprocess
import sys
import tempfile
from pathlib import Path

from generate import HERE, include_folders, proto_files
from grpc_tools import protoc

BUF = Path(sys.executable).parent / "buf"


def main() -> int:
    """Compiles the protos and lints the result; returns the exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch) / "protos.binpb"
        includes = [f"-I{folder}" for folder in include_folders()]
        flags = ["--include_imports", "--include_source_info", f"--descriptor_set_out={image}"]
        if code := protoc.main(["protoc", *includes, *flags, *proto_files()]):
            return int(code)
        command = [str(BUF), "lint", str(image), "--config", str(HERE / "buf.yaml")]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    ours = [line for line in found.stdout.splitlines() if not line.startswith("google/")]
    print("\n".join(ours) or "protos: clean", file=sys.stderr if ours else sys.stdout)
    if found.stderr.strip():
        print(found.stderr, file=sys.stderr)
    return 1 if ours or found.stderr.strip() else 0


if __name__ == "__main__":
    sys.exit(main())
