"""protos → marquee ← {training, services, clients}, and who may import which library."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.arrows import PARTS, REACHES, RULES, read_imports, violations

ROOT = Path(__file__).parents[2]


def test_the_repository_keeps_the_arrows() -> None:
    found = violations(ROOT)
    assert not found, "\n".join(["imports against the design (section 2, arrows):", *found])


def test_every_module_that_a_rule_speaks_of_is_there() -> None:
    # A rule for a module that has another name now would hold for ever.
    spoken_of = {name for rule in RULES for name in (*rule.modules, *rule.unless)}
    spoken_of |= {name for reach in REACHES for name in reach.modules}
    paths = {name: ROOT / name.replace(".", "/") for name in spoken_of}
    assert [name for name, path in paths.items() if not (path.is_dir() or path.with_suffix(".py").is_file())] == []


def test_the_reader_sees_imports() -> None:
    seen = {(one.module, one.name) for one in read_imports(ROOT)}
    assert ("marquee.engine.index", "faiss") in seen
    assert ("marquee.engine.encoder", "onnxruntime") in seen
    assert {module.split(".")[0] for module, _ in seen} == set(PARTS)


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("marquee/a.py", "import services.common", "1: marquee.a imports services.common: marquee knows none"),
        ("marquee/a.py", "\nfrom training import train", "2: marquee.a imports training.train: marquee knows none"),
        ("services/a.py", "from training.model import TwoTower", "1: services.a imports training.model.TwoTower"),
        ("services/a.py", "def f():\n    import clients.cli", "2: services.a imports clients.cli: the parts meet"),
        ("training/a.py", "import os, services", "1: training.a imports services: the parts meet"),
        ("clients/__init__.py", "from services import user_encoder", "1: clients imports services.user_encoder"),
        ("clients/a.py", 'importlib.import_module("training.x")', "1: clients.a imports training.x: the parts meet"),
        ("services/user_encoder/a.py", "import services.retriever.b", "1: services.user_encoder.a imports services.re"),
        ("services/retriever/a.py", "from services import user_encoder", "1: services.retriever.a imports services.u"),
        ("services/common/a.py", "import services.retriever", "1: services.common.a imports services.retriever: comm"),
        ("services/retriever/a.py", "import faiss", "1: services.retriever.a imports faiss: only marquee.engine"),
        ("training/a.py", "import onnxruntime as ort", "1: training.a imports onnxruntime: only marquee.engine"),
        ("marquee/bundle/a.py", "from faiss import IndexFlatIP", "1: marquee.bundle.a imports faiss.IndexFlatIP: only"),
        ("marquee/engine/a.py", "import torch", "1: marquee.engine.a imports torch: only training has it"),
        ("services/a.py", "import onnx", "1: services.a imports onnx: only training has it"),
        ("services/a.py", "from rich.console import Console", "1: services.a imports rich.console.Console: only tr"),
        ("clients/a.py", "from tests import bundles", "1: clients.a imports tests.bundles: what is shipped"),
        ("clients/a.py", "import sys\nsys.path.insert(0, '.')", "2: clients.a imports sys.path: a path is an import"),
        ("clients/a.py", "from sys import path", "1: clients.a imports sys.path: a path is an import"),
        ("clients/a.py", "from . import b", "1: clients.a imports .b: write the whole path"),
        ("clients/a/b.py", "from ..c import d", "1: clients.a.b imports ..c.d: write the whole path"),
        ("clients/a.py", "__import__(name)", "1: clients.a imports a computed name: write an import"),
        ("marquee/client/a.py", "import pandas", "1: marquee.client.a imports pandas: the SDK needs"),
    ],
)
def test_the_checker_finds(tmp_path: Path, path: str, source: str, expected: str) -> None:
    write(tmp_path, path, source)
    assert any(found.startswith(f"{path}:{expected}") for found in violations(tmp_path)), violations(tmp_path)


def test_what_the_sdk_drags_along_counts_wherever_it_is(tmp_path: Path) -> None:
    write(tmp_path, "marquee/client/a.py", "from marquee.helpers import b")
    write(tmp_path, "marquee/helpers/__init__.py", "")
    write(tmp_path, "marquee/helpers/b.py", "def f():\n    import torch")
    why = "the SDK needs grpcio, protobuf and numpy only"
    assert f"marquee/helpers/b.py:2: marquee.helpers.b imports torch: {why}" in violations(tmp_path)


def test_a_package_drags_its_parents_along(tmp_path: Path) -> None:
    write(tmp_path, "services/retriever/a.py", "import marquee.deep.b")
    write(tmp_path, "marquee/deep/__init__.py", "from marquee import engine")
    write(tmp_path, "marquee/deep/b.py", "")
    write(tmp_path, "marquee/engine/__init__.py", "import onnxruntime")
    expected = "marquee/engine/__init__.py:1: marquee.engine imports onnxruntime: the retriever's image lacks it"
    assert violations(tmp_path) == [expected]


def test_a_service_may_import_what_another_lacks_once_it_is_needed(tmp_path: Path) -> None:
    write(tmp_path, "services/retriever/a.py", "def f():\n    import marquee.engine.b")
    write(tmp_path, "marquee/engine/b.py", "import onnxruntime")
    assert violations(tmp_path) == []


def test_one_module_has_one_name(tmp_path: Path) -> None:
    write(tmp_path, "services/common/logs.py", "")
    write(tmp_path, "services/retriever/a.py", "from common.logs import configure_logs")
    expected = "services/retriever/a.py:1: services.retriever.a imports common.logs.configure_logs"
    assert violations(tmp_path) == [f"{expected}: it is services.common everywhere else"]


def test_a_module_may_be_named_after_the_library_that_it_wraps(tmp_path: Path) -> None:
    write(tmp_path, "services/user_encoder/stores/redis.py", "import redis.asyncio")
    assert violations(tmp_path) == []


def write(root: Path, path: str, source: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(source)
