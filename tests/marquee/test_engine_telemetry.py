"""ONNX Runtime is told to report nothing to its maker before it is imported, unless whoever runs it says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Says what the variable is at the moment when ONNX Runtime is first looked for.
PROGRAM = """
import os, sys
class Told:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print(os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Told())
import marquee.engine.encoder
"""


@pytest.mark.parametrize(("given", "seen"), [({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")])
def test_the_runtime_is_told_before_it_is_imported(given: dict[str, str], seen: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"} | given
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == [seen]
