"""Reads every import of a tree and tells which of them go against an arrow of the design.

protos → marquee ← {training, services, clients}: the parts never import each other, they meet in protos and bundles.
What runs where must be importable there, so libraries have owners too. Nothing is imported to find that out.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

COMPUTED = "a computed name"
PARTS = ("marquee", "services", "training", "clients")


class Import(NamedTuple):
    """Is one imported name, as deep as it is written: `from a.b import c` imports "a.b.c".

    A `deferred` one is not run by importing the file: it stands in a function or under TYPE_CHECKING.
    """

    path: Path
    line: int
    module: str
    name: str
    deferred: bool = False

    def told(self, why: str) -> str:
        """Words a violation."""
        return f"{self.path}:{self.line}: {self.module} imports {self.name}: {why}"


class Rule(NamedTuple):
    """Forbids modules to import names; both mean whatever is below them, too."""

    modules: tuple[str, ...]
    never: tuple[str, ...]
    why: str
    unless: tuple[str, ...] = ()

    def forbids(self, one: Import) -> bool:
        """Says whether an import goes against the rule."""
        return _below(one.module, self.modules) and not _below(one.module, self.unless) and _below(one.name, self.never)


class Reach(NamedTuple):
    """Limits what comes along with modules: what they import, what that imports, and so on.

    `only` lists what may be reached outside the standard library and the tree, `never` what may not; either may be
    None. Deferred imports count where `deferred` says so.
    """

    modules: tuple[str, ...]
    deferred: bool
    only: tuple[str, ...] | None
    never: tuple[str, ...]
    why: str

    def forbids(self, name: str, tree: Iterable[str]) -> bool:
        """Says whether a name may not be reached."""
        if _below(name, self.never):
            return True
        outside = not _below(name, (*tree, *sys.stdlib_module_names, "__future__"))
        return self.only is not None and outside and not _below(name, self.only)


SDK = ("marquee.client", "marquee.errors", "marquee.movies", "marquee.v1")

RULES = (
    Rule(("marquee",), ("services", "training", "clients"), "marquee knows none of its users"),
    Rule(("services",), ("training", "clients"), "the parts meet in protos and bundles"),
    Rule(("training",), ("services", "clients"), "the parts meet in protos and bundles"),
    Rule(("clients",), ("services", "training"), "the parts meet in protos and bundles"),
    Rule(("services.user_encoder",), ("services.retriever",), "the services meet in protos and bundles"),
    Rule(("services.retriever",), ("services.user_encoder",), "the services meet in protos and bundles"),
    Rule(("services.common",), ("services.user_encoder", "services.retriever"), "common knows no service"),
    Rule(("clients.desktop",), ("grpc", "marquee.v1"), "widgets know the presenter's views, and no rpc"),
    Rule(PARTS, ("tests", "benchmarks", "protos"), "what is shipped needs nothing that is not"),
    Rule(PARTS, ("faiss", "onnxruntime"), "only marquee.engine opens sessions and indexes", unless=("marquee.engine",)),
    Rule(PARTS, ("torch", "onnx", "onnxscript"), "only training has it", unless=("training",)),
    Rule(PARTS, ("pymilvus",), "only the retriever has it", unless=("services.retriever",)),
    Rule(PARTS, ("rich",), "only training and clients have it", unless=("training", "clients")),
    Rule(
        PARTS,
        ("opentelemetry",),
        "an extra of its own: one module of the SDK and one of the services know it",
        unless=("marquee.client.tracing", "services.common.tracing"),
    ),
    Rule(PARTS, ("sys.path", "sys.meta_path", "sys.path_hooks", "site"), "a path is an import; leave the search alone"),
)

REACHES = (
    Reach(
        SDK,
        True,
        ("grpc", "google", "numpy", "opentelemetry"),
        ("marquee.engine",),
        "the SDK needs grpcio, protobuf and numpy only",
    ),
    Reach(
        (*SDK, "services.user_encoder", "services.retriever"),
        False,
        None,
        ("opentelemetry",),
        "an extra of its own: import it where traces are asked for",
    ),
    Reach(("services.user_encoder",), False, None, ("faiss", "torch", "onnx", "rich"), "the encoder's image lacks it"),
    Reach(("services",), False, None, ("pyarrow",), "it takes 40 MB: import it where an export needs it"),
    Reach(
        ("services.retriever",), False, None, ("onnxruntime", "torch", "onnx", "rich"), "the retriever's image lacks it"
    ),
    Reach(("services",), False, None, ("pymilvus",), "an extra of its own: import it where a Milvus is asked for"),
    Reach(
        ("clients.cli",), True, None, ("faiss", "onnxruntime", "torch", "uvloop"), "the command line has the SDK alone"
    ),
)


def violations(root: Path) -> list[str]:
    """Lists what is wrong with the imports of the tree at `root`, as "file:line: module imports name: why"."""
    imports = list(read_imports(root))
    found = [one.told(rule.why) for rule in RULES for one in imports if rule.forbids(one)]
    found += [one.told(why) for one in imports if (why := _spelling(root, one))]
    for reach in REACHES:
        found += [one.told(reach.why) for one in reached(root, imports, reach) if reach.forbids(one.name, PARTS)]
    return sorted(set(found))


def read_imports(root: Path) -> Iterator[Import]:
    """Reads the imports of every file of every part."""
    for part in PARTS:
        for path in sorted((root / part).rglob("*.py")):
            reader = _Reader(path.relative_to(root))
            reader.visit(ast.parse(path.read_bytes(), str(path)))
            yield from reader.found


def reached(root: Path, imports: Iterable[Import], reach: Reach) -> list[Import]:
    """Lists every import that comes along with the modules that `reach` starts from."""
    of_module: dict[str, list[Import]] = {}
    for one in imports:
        if reach.deferred or not one.deferred:
            of_module.setdefault(one.module, []).append(one)
    modules = {_module_of(path.relative_to(root)) for part in PARTS for path in (root / part).rglob("*.py")}
    waiting = [module for module in modules if _below(module, reach.modules)]
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            # Importing a.b.c runs a and a.b first.
            names = [module, *(one.name for one in of_module.get(module, []))]
            waiting += [parent for name in names for parent in _with_parents(name) if parent in modules]
    return [one for module in sorted(seen) for one in of_module.get(module, [])]


class _Reader(ast.NodeVisitor):
    """Collects a file's imports, the ones by name in a string too."""

    def __init__(self, path: Path) -> None:
        self.found: list[Import] = []
        self._path = path
        self._depth = 0

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self._add(node, "." * node.level + ".".join(filter(None, (node.module, alias.name))))

    def visit_Call(self, node: ast.Call) -> None:
        if ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__"):
            match node.args:
                case [ast.Constant(value=str(name)), *_]:
                    self._add(node, name)
                case _:
                    self._add(node, COMPUTED)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.value, ast.Name) and node.value.id == "sys":
            # Most of `sys` is harmless; the rules know what is not.
            self._add(node, f"sys.{node.attr}")
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._visit_deferred(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._visit_deferred(node)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test).endswith("TYPE_CHECKING"):
            self._visit_deferred(node)
        else:
            self.generic_visit(node)

    def _visit_deferred(self, node: ast.AST) -> None:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    def _add(self, node: ast.expr | ast.stmt, name: str) -> None:
        self.found.append(Import(self._path, node.lineno, _module_of(self._path), name, self._depth > 0))


def _spelling(root: Path, one: Import) -> str:
    """Says what is wrong with how a name is spelled, "" for nothing."""
    if one.name.startswith("."):
        return "write the whole path, not a relative one"
    if one.name == COMPUTED:
        return "write an import that can be read"
    top = one.name.split(".")[0]
    if top in PARTS or top in sys.stdlib_module_names:
        return ""
    # A short name that would be found if one of the folders around the file were on the path.
    for folder in list(one.path.parents)[:-1]:
        for near in (folder / f"{top}.py", folder / top):
            if near != one.path and (root / near).exists():
                return f"it is {_module_of(near)} everywhere else"
    return ""


def _module_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _below(name: str, tops: Iterable[str]) -> bool:
    return any(name == top or name.startswith(f"{top}.") for top in tops)
