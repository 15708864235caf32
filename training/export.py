"""Exports trained towers as a bundle. N movies, B people, L history length, T content tokens, D dimension."""

from __future__ import annotations

import dataclasses
import datetime
import json
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

import marquee
from marquee.bundle import catalog, format, probes
from marquee.bundle.format import Bundle, BundleWriter
from marquee.bundle.v1 import bundle_pb2
from marquee.engine.encoder import Encoder, ItemTower
from marquee.engine.index import Index, Quality
from marquee.errors import BundleError
from marquee.features import Events, Int64s, TowerInput
from marquee.movies import MovieRecord
from training.data import Dataset
from training.evaluate import evaluate, query_vectors
from training.indexing import QUERIES, IndexConfig, sample_queries, write_chosen_index
from training.split import Queries, Split
from training.train import Trained

PARITY = 1e-5
_AUTO = IndexConfig()


def export(
    data: Dataset,
    split: Split,
    trained: Trained,
    timings_s: dict[str, float],
    destination: Path,
    baselines: str = "quick",
    index_config: IndexConfig = _AUTO,
) -> Bundle:
    """Writes the bundle of trained towers, evaluated as it will be served beside a suite of baselines.

    Raises BundleError where ONNX Runtime and PyTorch disagree.
    """
    with BundleWriter(destination) as writer:
        draft, found = _write_model(data, split.test, trained, writer.folder, index_config)
        metrics, record = evaluate(data, split, Encoder(draft), Index(draft), baselines)
        probes.write_npz(draft.file(format.EVALUATION), record._asdict())
        report = bundle_pb2.Report(metrics=metrics, timings_s=timings_s, created_at=_now(), index=found)
        return writer.finish(draft.manifest, report)


def export_refitted(
    data: Dataset,
    people: Queries,
    trained: Trained,
    measured: Bundle,
    timings_s: dict[str, float],
    destination: Path,
    index_config: IndexConfig = _AUTO,
) -> Bundle:
    """Writes the bundle of towers that were trained on everything; it carries the evaluation of `measured`.

    Nothing is left to measure them on: `measured` is their sibling, trained alike without the test events. `people`
    only ask the index. Raises BundleError where ONNX Runtime and PyTorch disagree.
    """
    with BundleWriter(destination) as writer:
        draft, found = _write_model(data, people, trained, writer.folder, index_config)
        shutil.copyfile(measured.file(format.EVALUATION), draft.file(format.EVALUATION))
        report = bundle_pb2.Report(
            metrics=measured.report().metrics,
            timings_s=timings_s,
            created_at=_now(),
            index=found,
            carried_from=measured.id,
        )
        return writer.finish(draft.manifest, report)


def _write_model(
    data: Dataset, people: Queries, trained: Trained, folder: Path, index_config: IndexConfig
) -> tuple[Bundle, bundle_pb2.IndexReport]:
    """Writes everything but evaluation and report; returns the bundle so far, and what was found of its index."""
    export_towers(trained, folder)
    table_ND = history_table(trained)
    np.save(folder / format.HISTORY_IDS, data.movie_ids.astype(np.int64))
    np.save(folder / format.HISTORY_TABLE, table_ND)
    draft = Bundle(folder, "", _manifest(data, trained))
    item_tower = ItemTower(draft)
    vectors_ND = item_tower.embed(table_ND, trained.content_NT)
    write_catalogue_part(folder, data.movies, vectors_ND)
    encoder = Encoder(draft)
    check_parity(trained, encoder, item_tower)
    people_QD = query_vectors(data, people.sample(QUERIES), encoder)
    found = write_chosen_index(draft, sample_queries(people_QD, vectors_ND, trained.config.seed), index_config)
    write_probe_part(draft, seed=trained.config.seed)
    return draft, found


def write_catalogue_part(folder: Path, movies: list[MovieRecord], vectors_ND: np.ndarray) -> None:
    """Writes what a revision changes, but for its index: movie ids, item vectors and catalogue; row i is movie i."""
    np.save(folder / format.MOVIE_IDS, np.array([movie.movie_id for movie in movies], np.int64))
    np.save(folder / format.ITEM_VECTORS, vectors_ND)
    catalog.write_catalog(folder / format.CATALOG, movies)


def write_probe_part(draft: Bundle, *, seed: int) -> None:
    """Records what this machine answers to synthetic histories."""
    encoder, index = Encoder(draft), Index(draft)
    ids = np.asarray(draft.array(format.HISTORY_IDS), np.int64)[: draft.manifest.trained_history_rows]
    cases = probes.synthetic_histories(ids, draft.features.max_history, seed)
    vectors = np.stack([encoder.encode(events, as_of_ms)[0] for events, as_of_ms in cases])
    tops = np.full((len(cases), probes.TOP), -1, np.int64)
    for number, vector in enumerate(vectors):
        found = index.search(vector, probes.TOP, quality=Quality.EXACT).movie_ids
        tops[number, : len(found)] = found
    probes.write_probes(draft.file(format.PROBES), _probes(cases, vectors, tops))


def _probes(cases: list[tuple[Events, int]], vectors: np.ndarray, tops: Int64s) -> probes.Probes:
    events = [events for events, _ in cases]
    return probes.Probes(
        movie_ids=np.concatenate([one.movie_ids for one in events]),
        kinds=np.concatenate([one.kinds for one in events]),
        values=np.concatenate([one.values for one in events]),
        times_ms=np.concatenate([one.times_ms for one in events]),
        offsets=np.cumsum([0] + [one.size for one in events]).astype(np.int64),
        as_of_ms=np.array([as_of_ms for _, as_of_ms in cases], np.int64),
        vectors=vectors,
        top_ids=tops,
    )


@torch.no_grad()
def history_table(trained: Trained) -> np.ndarray:
    """Computes the rows that the user tower reads, [N, D]: of the content, and of what was learned of each movie."""
    content_rows_ND = trained.model.item_tower.content_rows(torch.from_numpy(trained.content_NT))
    rows_ND = trained.model.ids.weight * trained.model.trained_N1 + content_rows_ND
    return rows_ND.numpy().astype(np.float32)


def export_towers(trained: Trained, folder: Path) -> None:
    """Writes both towers as ONNX with dynamic batch and length, without metadata or source paths."""
    spec = trained.spec
    people, length = torch.export.Dim("people"), torch.export.Dim("length")
    # Three tensors, not one three times: the exporter would take them for one input.
    buckets = [torch.ones(2, 3, dtype=torch.int64) for _ in range(3)]
    _export(
        trained.model.user_tower,
        (torch.ones(2, 3, spec.dimension), torch.ones(2, 3), *buckets),
        folder / format.USER_TOWER,
        ["rows", "ratings", "ages", "gaps", "kinds"],
        ["vectors"],
        tuple({0: people, 1: length} for _ in range(5)),
    )
    movies = torch.export.Dim("movies")
    _export(
        trained.model.item_tower,
        (torch.ones(2, spec.dimension), torch.ones(2, spec.max_content_tokens, dtype=torch.int64)),
        folder / format.ITEM_TOWER,
        ["rows", "content"],
        ["vectors", "content_rows"],
        ({0: movies}, {0: movies}),
    )


def _export(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    input_names: list[str],
    output_names: list[str],
    dynamic_shapes: tuple[dict[int, object], ...],
) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision, unused here, is missing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program = torch.onnx.export(
            module,
            inputs,
            input_names=input_names,
            output_names=output_names,
            dynamic_shapes=dynamic_shapes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    path.write_bytes(_stripped(program.model_proto))


def _stripped(model: onnx.ModelProto) -> bytes:
    # The exporter writes absolute source paths into metadata: equal towers would differ from folder to folder.
    del model.metadata_props[:]
    model.doc_string = ""
    holders: list[Any] = [model.graph, *model.functions]
    for holder in [*holders]:
        holders += [*holder.node, *holder.value_info]
    holders += [*model.graph.input, *model.graph.output, *model.graph.initializer]
    for holder in holders:
        holder.doc_string = ""
        del holder.metadata_props[:]
    return model.SerializeToString(deterministic=True)


def check_parity(trained: Trained, encoder: Encoder, item_tower: ItemTower) -> None:
    """Raises BundleError unless ONNX Runtime gives PyTorch's vectors and content rows.

    Items are compared on the real content, with trained rows and with cold ones; people at several batch sizes and
    lengths.
    """
    _check_item_tower(trained, item_tower)
    _check_user_tower(trained, encoder)


@torch.no_grad()
def _check_item_tower(trained: Trained, item_tower: ItemTower) -> None:
    tower, content_NT = trained.model.item_tower, torch.from_numpy(trained.content_NT)
    cold_ND = tower.content_rows(content_NT)
    # Rows are not of unit length, and theirs counts: it weighs content against the id half.
    off_ND = np.abs(item_tower.content_rows(trained.content_NT, trained.spec.dimension) - cold_ND.numpy())
    gap = float(np.max(off_ND) / max(1.0, float(cold_ND.abs().max())))
    _allow(format.ITEM_TOWER, f"the largest difference = {gap:.2e} in content rows", gap)
    for name, rows_ND in (("trained", torch.from_numpy(history_table(trained))), ("cold", cold_ND)):
        gap = _cosine_gap(tower(rows_ND, content_NT)[0].numpy(), item_tower.embed(rows_ND.numpy(), trained.content_NT))
        _allow(format.ITEM_TOWER, f"1 - cos = {gap:.2e} on {name} rows", gap)


@torch.no_grad()
def _check_user_tower(trained: Trained, encoder: Encoder) -> None:
    rng = np.random.default_rng(0)
    table = torch.from_numpy(history_table(trained))
    longest = trained.spec.max_history
    for people, length in ((1, 1), (1, longest), (3, min(2, longest)), (17, min(9, longest))):
        inputs = random_input(rng, people, length, len(table), trained.spec)
        rows = table[torch.from_numpy(inputs.rows)]
        ours = trained.model.user_tower(rows, *(torch.from_numpy(column) for column in inputs[1:])).numpy()
        gap = _cosine_gap(ours, encoder.run(inputs))
        _allow(format.USER_TOWER, f"1 - cos = {gap:.2e} at {people} x {length}", gap)


def _cosine_gap(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.max(1.0 - np.sum(ours * theirs, axis=1)))


def _allow(name: str, what: str, gap: float) -> None:
    if not gap <= PARITY:
        raise BundleError(
            f"{name}: ONNX Runtime is off PyTorch by {what} (allowed {PARITY:.0e}); "
            "install the versions of constraints.txt"
        )


def random_input(
    rng: np.random.Generator, people: int, length: int, movies: int, spec: bundle_pb2.FeatureSpec
) -> TowerInput:
    """Makes up tower inputs of all buckets and kinds, [people, length], the first as long as that."""
    lengths = rng.integers(0, length + 1, people)
    lengths[0] = length
    real = np.arange(length) < lengths[:, None]
    return TowerInput(
        rows=rng.integers(0, movies, (people, length)) * real,
        ratings=(rng.uniform(-1.25, 1, (people, length)) * real).astype(np.float32),
        ages=rng.integers(1, len(spec.age_edges_s) + 2, (people, length)) * real,
        gaps=rng.integers(1, len(spec.gap_edges_s) + 3, (people, length)) * real,
        kinds=rng.integers(1, 8, (people, length)) * real,
    )


def _manifest(data: Dataset, trained: Trained) -> bundle_pb2.Manifest:
    tower = trained.model.config
    manifest = bundle_pb2.Manifest(
        features=trained.spec,
        tower=bundle_pb2.TowerSpec(kind=tower.kind),
        dataset=data.summary(),
        seed=trained.config.seed,
        code_version=marquee.__version__,
        trained_history_rows=len(data.movies),
        movies=len(data.movies),
    )
    effective = {"tower": dataclasses.asdict(tower), "training": dataclasses.asdict(trained.config)}
    # proto-JSON has no infinity: a half-life without end becomes a text.
    manifest.tower.config.update(json.loads(json.dumps(effective), parse_constant=str))
    return manifest


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
