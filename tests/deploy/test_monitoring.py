"""Alerts and dashboard: what they read is what the services say, and each alert fires on what it is for."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from marquee.client import Recommender
from marquee.v1 import retriever_pb2, retriever_pb2_grpc, user_encoder_pb2, user_encoder_pb2_grpc
from tests.bundles import GENRES, make_bundle
from tests.deploy.rendering import DEPLOY, Choice, of_kind, rendered
from tests.rigs import ROOT, publish, service_process

MONITORING = DEPLOY / "components" / "monitoring"
RULES = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
EXPRESSIONS = [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]
# What the services do not say themselves: it is of kube-state-metrics, and of the component mtls.
ELSEWHERE = {"kube_cronjob_status_last_successful_time"}
ONLY_UNDER_TLS = {
    "marquee_user_encoder_certificate_expires_timestamp_seconds",
    "marquee_retriever_certificate_expires_timestamp_seconds",
}
# And what is said only of histories that were answered from memory, which takes a store that is away.
ONLY_WHILE_STALE = {f"marquee_user_encoder_remembered_age_seconds{part}" for part in ("", "_bucket", "_count", "_sum")}
UNSAID = ONLY_UNDER_TLS | ONLY_WHILE_STALE
NAMES = re.compile(r"\b(?:marquee_(?:user_encoder|retriever)|grpc_server|kube)_[a-z_]+")
# What the expressions have of this shape that names no metric.
NO_NAMES = {"marquee_user_encoder", "marquee_retriever"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Runs both services, has them answer and refuse something; is their metrics' ports."""
    folder = tmp_path_factory.mktemp("scraped")
    bundle = make_bundle(folder / "bundle")
    registry = publish(folder / "registry", bundle)
    ports = {"user_encoder": free_port(), "retriever": free_port()}
    with ExitStack() as stack:
        shared = ["--drain-s=0", "--served-sample=1", f"--served-folder={folder / 'served'}"]
        flags = {"user_encoder": [f"--store={folder / 'features.sqlite'}"], "retriever": []}
        encoder, retriever = (
            stack.enter_context(
                service_process(name, folder, registry.root, f"--metrics-port={port}", *shared, *flags[name])
            )
            for name, port in ports.items()
        )
        client = stack.enter_context(Recommender(f"127.0.0.1:{encoder.port}", f"127.0.0.1:{retriever.port}"))
        client.recommend(likes=[1, 4], k=3)
        client.recommend(likes=[1, 4], k=3, genres=[GENRES[0]])
        assert len(list(client.batch(["ada", "bob"], k=3))) == 2
        with grpc.insecure_channel(f"127.0.0.1:{encoder.port}") as channel:
            users = user_encoder_pb2_grpc.UserEncoderServiceStub(channel)
            with pytest.raises(grpc.RpcError):
                users.Encode(user_encoder_pb2.EncodeRequest(), timeout=10)
        with grpc.insecure_channel(f"127.0.0.1:{retriever.port}") as channel:
            movies = retriever_pb2_grpc.RetrieverServiceStub(channel)
            with pytest.raises(grpc.RpcError):
                movies.Search(retriever_pb2.SearchRequest(vector=b"\0" * 64, space="0" * 64, k=3), timeout=10)
        yield ports


def read(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def test_every_name_and_label_that_is_read_is_said(scraped: dict[str, int]) -> None:
    said: dict[str, set[str]] = {}
    for port in scraped.values():
        for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? ", read(port), re.MULTILINE):
            said.setdefault(name, {"namespace", "pod"}).update(re.findall(r'(\w+)="', labels))
    for expression in [*QUERIES, *EXPRESSIONS]:
        names = set(NAMES.findall(expression)) - ELSEWHERE - UNSAID - NO_NAMES
        assert names <= said.keys(), expression
        for name, matchers in re.findall(r"\b((?:marquee|grpc_server)_[a-z_]+)\{([^}]*)\}", expression):
            if name in said:
                assert set(re.findall(r"(\w+)(?:=~?|!=)", matchers)) <= said[name], expression


def test_the_autoscaler_and_its_adapter_read_what_is_said(scraped: dict[str, int]) -> None:
    text = "".join(map(read, scraped.values()))
    names = {
        metric["pods"]["metric"]["name"]
        for scaler in of_kind(rendered(Choice("prod", ())), "HorizontalPodAutoscaler")
        for metric in scaler["spec"]["metrics"]
        if metric["type"] == "Pods"
    }
    adapter = (DEPLOY / "components" / "autoscaling" / "adapter.yaml").read_text()
    assert names == set(re.findall(r"seriesQuery: '(\w+)", adapter))
    assert all(f"\n{name}{{" in text for name in names)


@contextmanager
def prometheus(folder: Path, ports: dict[str, int]) -> Iterator[str]:
    """Runs a Prometheus that looks every second, with our rules; is its address."""
    if shutil.which("prometheus") is None:
        pytest.skip("needs Prometheus (Debian's package prometheus): no query was run against a live scrape")
    targets = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": "marquee", "pod": name, "track": "stable"}}
        for name, port in ports.items()
    ]
    (folder / "rules.yaml").write_text(yaml.safe_dump(RULES))
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "marquee", "static_configs": targets}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    flags = [f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["prometheus", *flags, f"--web.listen-address={address}"], stderr=log)
    try:
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()


def ask(address: str, query: str) -> list[Any]:
    url = f"{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        found: list[Any] = json.loads(answer.read())["data"]["result"]
        return found


def until(address: str, query: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if ask(address, query):
                return
        except OSError:
            # It has not begun to listen.
            pass
        assert time.monotonic() < deadline, f"Prometheus never answered {query}"
        time.sleep(0.1)


def test_every_query_of_the_dashboard_answers_on_a_live_scrape(scraped: dict[str, int], tmp_path: Path) -> None:
    with prometheus(tmp_path, scraped) as address:
        # Three scrapes of both, so that there are rates.
        until(address, "count(sum_over_time(up[1m]) >= 3) == 2")
        empty = []
        for query in QUERIES:
            if not ask(address, query.replace("$namespace", "marquee")):
                empty.append(query)
        assert [query for query in empty if not set(NAMES.findall(query)) & UNSAID] == []
        until(address, "count(marquee:calls_failed:ratio_rate5m) == 2")
        assert {one["metric"]["service"] for one in ask(address, "marquee:calls_failed:ratio_rate5m")} == set(scraped)


def promtool(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool (Debian's package prometheus): no alert was tried")
    return subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_each_alert_fires_on_what_it_is_for_and_is_silent_where_all_is_well(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(RULES))
    shutil.copy(Path(__file__).with_name("alerts.test.yaml"), tmp_path / "alerts.test.yaml")
    checked = promtool("check", "rules", "--lint-fatal", "rules.yaml", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = promtool("test", "rules", "alerts.test.yaml", cwd=tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_each_alert_is_tried_both_ways_and_has_a_way_out() -> None:
    tests = yaml.safe_load(Path(__file__).with_name("alerts.test.yaml").read_text())["tests"]
    tried = [(one["alertname"], bool(one["exp_alerts"])) for test in tests for one in test["alert_rule_test"]]
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    for rule in ALERTS:
        assert {(rule["alert"], True), (rule["alert"], False)} <= set(tried)
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert f"\n### {rule['alert']}\n" in runbook
        assert rule["labels"]["severity"] in ("page", "ticket")
