"""Makes small, real bundles in a moment: towers written node by node with onnx, everything else by the code that ships.

Letters in array names: B people, L history length, N movies, T content tokens, D dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf import struct_pb2
from onnx import TensorProto, helper, numpy_helper

from marquee.bundle.catalog import write_catalog
from marquee.bundle.format import (
    CATALOG,
    EVALUATION,
    HISTORY_IDS,
    HISTORY_TABLE,
    INDEX,
    ITEM_TOWER,
    ITEM_VECTORS,
    MOVIE_IDS,
    PROBES,
    USER_TOWER,
    Bundle,
    BundleWriter,
)
from marquee.bundle.gate import Evaluation
from marquee.bundle.probes import TOP, Probes, synthetic_histories, write_npz, write_probes
from marquee.bundle.v1 import bundle_pb2
from marquee.engine.encoder import Encoder, ItemTower
from marquee.engine.index import Index, Quality
from marquee.engine.kinds import EXACT, Spec, write_index
from marquee.features import Events, Floats, Int64s, content_ids, feature_spec
from marquee.movies import MovieRecord

GENRES = ("Comedy", "Drama", "Horror", "Sci-Fi", "Western", "Film-Noir")
LANGUAGES = ("en", "fr", "ja", "")
_NOUNS = ("Harbor", "Lantern", "Meadow", "Orchard", "Sparrow", "Winter", "Étoile")
EXACTLY = Spec(EXACT, {})
_OPSET = 17
_IR_VERSION = 9


def make_bundle(
    folder: Path,
    *,
    movies: int = 50,
    seed: int = 1,
    dimension: int = 16,
    added: int = 0,
    dropped: int = 0,
    max_history: int = 20,
    quality: float = 0.5,
    index: Spec = EXACTLY,
    titles: Mapping[int, str] | None = None,
) -> Bundle:
    """Writes a valid bundle to `folder` and opens it; equal arguments give the same bundle id.

    `seed`, `movies` (6 or more), `dimension` and `max_history` make the space. A revision of that space has other
    numbers of movies that were `added` after training or `dropped` from the index. `quality` is the model's NDCG@10 in
    the evaluation, where popularity has 0.1. `titles` gives some movies, by number, other titles.
    """
    rng = np.random.default_rng(seed)
    spec = feature_spec(max_history=max_history, dimension=dimension, content_buckets=64, max_content_tokens=12)
    manifest = bundle_pb2.Manifest(
        features=spec,
        tower=bundle_pb2.TowerSpec(kind="pooled", config=struct_pb2.Struct()),
        index=index.message(),
        dataset=bundle_pb2.Dataset(name="tests", fingerprint="0" * 64, movies=movies, simulated=True),
        seed=seed,
        code_version="tests",
        trained_history_rows=movies,
        movies=movies + added - dropped,
    )
    records = [movie_record(number) for number in range(movies + added)]
    records = [record._replace(title=(titles or {}).get(at, record.title)) for at, record in enumerate(records)]
    # Shuffled, so that no test passes because row order happens to be id order.
    order = np.random.default_rng(seed).permutation(len(records))
    shown = [records[at] for at in order if at >= dropped]
    with BundleWriter(folder) as writer:
        draft = Bundle(writer.folder, "", manifest)
        _write_towers(draft, rng)
        _write_rows(draft, records, movies, rng)
        _write_items(draft, shown, index)
        write_catalog(draft.file(CATALOG), shown)
        _write_probes(draft, seed)
        _write_evaluation(draft, quality)
        return writer.finish(manifest, _report(quality))


def draft_of(
    folder: Path, ids: Int64s, vectors_ND: Floats, built: Spec = EXACTLY, claimed: Spec | None = None
) -> Bundle:
    """Writes what an index reads, and no more of a bundle; the manifest may claim another kind than the one built."""
    np.save(folder / MOVIE_IDS, ids)
    np.save(folder / ITEM_VECTORS, vectors_ND)
    write_index(folder / INDEX, vectors_ND, built)
    spec = bundle_pb2.FeatureSpec(dimension=vectors_ND.shape[1])
    return Bundle(folder, "", bundle_pb2.Manifest(features=spec, index=(claimed or built).message()))


def movie_record(number: int) -> MovieRecord:
    """Makes up the movie of a number, the same in every bundle; ids have gaps, and every fact is missing somewhere."""
    movie_id = 3 * number + 1
    noun, other = _NOUNS[number % 7], _NOUNS[(number // 7) % 7]
    return MovieRecord(
        movie_id=movie_id,
        title=f"The {noun} and the {other} {number}",
        year=None if number % 11 == 5 else 1950 + number % 60,
        genres=tuple(genre for at, genre in enumerate(GENRES) if number % (at + 2) == 0),
        language=LANGUAGES[number % 4],
        runtime_minutes=None if number % 5 == 0 else 80 + number % 60,
        directors=() if number % 4 == 3 else (f"Director {number % 9}",),
        cast=(f"Actor {number % 13}", f"Actor {number % 17} Junior"),
        external_id=f"imdb:tt{movie_id:07d}" if number % 6 else "",
        mean_rating=None if number % 10 == 9 else 0.5 + number % 10 / 2,
        rating_count=0 if number % 10 == 9 else 1 + number * 7 % 100,
        links=(f"https://www.imdb.com/title/tt{movie_id:07d}/",) if number % 6 else (),
    )


def _write_towers(draft: Bundle, rng: np.random.Generator) -> None:
    dimension = draft.features.dimension
    # What an empty history gives: a direction of its own, small beside any event's row.
    rest_D = (0.05 * _unit(rng.standard_normal((1, dimension)))).astype(np.float32)
    content_CD = (rng.standard_normal((draft.features.content_buckets + 1, dimension)) / 8).astype(np.float32)
    content_CD[0] = 0.0
    onnx.save(_user_tower(rest_D), str(draft.file(USER_TOWER)))
    onnx.save(_item_tower(content_CD, rest_D), str(draft.file(ITEM_TOWER)))


def _user_tower(rest_D: Floats) -> onnx.ModelProto:
    """Builds the mean of the rows, weighted by rating and recency, plus a constant, normalised."""
    dimension = rest_D.shape[1]
    columns = ["B", "L"]
    inputs = [
        helper.make_tensor_value_info("rows", TensorProto.FLOAT, [*columns, dimension]),
        helper.make_tensor_value_info("ratings", TensorProto.FLOAT, columns),
        *(helper.make_tensor_value_info(name, TensorProto.INT64, columns) for name in ("ages", "gaps", "kinds")),
    ]
    nodes = [
        helper.make_node("Greater", ["kinds", "zero"], ["known"]),
        helper.make_node("Cast", ["known"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["ages", "gaps"], ["distance"]),
        helper.make_node("Cast", ["distance"], ["distance_float"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["distance_float", "one"], ["damping"]),
        helper.make_node("Div", ["ratings", "damping"], ["recent"]),
        helper.make_node("Mul", ["recent", "mask"], ["weight"]),
        helper.make_node("Unsqueeze", ["weight", "last_axis"], ["weight_BL1"]),
        helper.make_node("Mul", ["rows", "weight_BL1"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "length_axis"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "length_axis"], ["count"], keepdims=1),
        helper.make_node("Add", ["count", "one"], ["count_or_one"]),
        helper.make_node("Div", ["sum", "count_or_one"], ["mean"]),
        helper.make_node("Add", ["mean", "rest"], ["user"]),
        *_normalise("user", "vector"),
    ]
    constants: dict[str, Any] = {
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.float32),
        "last_axis": np.array([2], np.int64),
        "length_axis": np.array([1], np.int64),
        "rest": rest_D,
    }
    outputs = [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["B", dimension])]
    return _model("user_tower", nodes, inputs, outputs, constants)


def _item_tower(content_CD: Floats, rest_D: Floats) -> onnx.ModelProto:
    """Builds the sum of the content's rows, and that plus the movie's own row, normalised."""
    dimension = content_CD.shape[1]
    inputs = [
        helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["N", dimension]),
        helper.make_tensor_value_info("content", TensorProto.INT64, ["N", "T"]),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "content"], ["tokens"], axis=0),
        helper.make_node("ReduceSum", ["tokens", "token_axis"], ["content_rows"], keepdims=0),
        helper.make_node("Add", ["rows", "content_rows"], ["both"]),
        helper.make_node("Add", ["both", "rest"], ["item"]),
        *_normalise("item", "vectors"),
    ]
    constants: dict[str, Any] = {"table": content_CD, "token_axis": np.array([1], np.int64), "rest": rest_D}
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", dimension]) for name in ("vectors", "content_rows")
    ]
    return _model("item_tower", nodes, inputs, outputs, constants)


def _normalise(source: str, result: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("ReduceL2", [source], [f"{source}_norm"], axes=[-1], keepdims=1),
        helper.make_node("Div", [source, f"{source}_norm"], [result]),
    ]


def _model(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: dict[str, Any],
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(value, constant) for constant, value in constants.items()]
    graph = helper.make_graph(list(nodes), name, list(inputs), list(outputs), tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(model)
    return model


def _write_rows(draft: Bundle, records: list[MovieRecord], trained: int, rng: np.random.Generator) -> None:
    dimension = draft.features.dimension
    trained_ND = _unit(rng.standard_normal((trained, dimension)))
    added = records[trained:]
    rows_ND = [trained_ND]
    if added:
        rows_ND.append(ItemTower(draft).content_rows(content_ids(added, draft.features), dimension))
    np.save(draft.file(HISTORY_IDS), np.array([movie.movie_id for movie in records], np.int64))
    np.save(draft.file(HISTORY_TABLE), np.concatenate(rows_ND).astype(np.float32))


def _write_items(draft: Bundle, shown: list[MovieRecord], index: Spec) -> None:
    ids = np.array([movie.movie_id for movie in shown], np.int64)
    history_ids: Int64s = np.load(draft.file(HISTORY_IDS))
    at = {movie_id: row for row, movie_id in enumerate(history_ids.tolist())}
    rows_ND = np.load(draft.file(HISTORY_TABLE))[[at[movie.movie_id] for movie in shown]]
    vectors_ND = ItemTower(draft).embed(rows_ND, content_ids(shown, draft.features))
    np.save(draft.file(MOVIE_IDS), ids)
    np.save(draft.file(ITEM_VECTORS), vectors_ND)
    write_index(draft.file(INDEX), vectors_ND, index)


def _write_probes(draft: Bundle, seed: int) -> None:
    encoder, index = Encoder(draft), Index(draft)
    history_ids: Int64s = np.load(draft.file(HISTORY_IDS))
    cases = synthetic_histories(history_ids, draft.features.max_history, seed)
    vectors = np.stack([encoder.encode(events, as_of_ms)[0] for events, as_of_ms in cases])
    top_ids = np.full((len(cases), TOP), -1, np.int64)
    for row, vector in enumerate(vectors):
        found = index.search(vector, TOP, quality=Quality.EXACT).movie_ids
        top_ids[row, : len(found)] = found
    columns = Events(*(np.concatenate(column) for column in zip(*(events for events, _ in cases), strict=True)))
    offsets = np.cumsum([0, *(events.size for events, _ in cases)]).astype(np.int64)
    as_of_ms = np.array([as_of_ms for _, as_of_ms in cases], np.int64)
    write_probes(draft.file(PROBES), Probes(*columns, offsets, as_of_ms, vectors, top_ids))


def _write_evaluation(draft: Bundle, quality: float) -> None:
    queries = np.arange(1, 41, dtype=np.uint64)
    spread = np.linspace(-0.05, 0.05, len(queries), dtype=np.float32)
    model, popularity = spread + np.float32(quality), spread[::-1] + np.float32(0.1)
    write_npz(draft.file(EVALUATION), Evaluation(queries, model, popularity)._asdict())


def _report(quality: float) -> bundle_pb2.Report:
    metric = bundle_pb2.Metric(
        system="model", protocol="last", targets="liked", name="ndcg@10", value=quality, n=40, low=quality, high=quality
    )
    return bundle_pb2.Report(metrics=[metric], created_at="2026-01-01T00:00:00Z")


def _unit(rows_ND: npt.NDArray[np.float64]) -> Floats:
    unit: Floats = (rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)).astype(np.float32)
    return unit
