"""How a Milvus is named, and what a retriever says where it cannot have it."""

from __future__ import annotations

import base64
import contextlib
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from marquee.errors import BundleError, ConfigError
from services.common.settings import effective, load_settings
from services.retriever import milvus_cleanup
from services.retriever.milvus import Collection, open_milvus
from services.retriever.settings import RetrieverSettings
from tests.bundles import make_bundle
from tests.deploy.rendering import Choice, Object, environment, named, pod_of, rendered
from tests.milvus_rigs import needs_milvus
from tests.rigs import publish, run_retriever

WRONG = [
    (["--milvus-uri=localhost:19530"], "'localhost:19530' must be http://HOST:PORT, or https:// for TLS"),
    (["--milvus-uri=ftp://milvus"], "'ftp://milvus' must be http://HOST:PORT"),
    (["--milvus-uri=http://:19530"], "must be http://HOST:PORT"),
    (["--milvus-uri=http://milvus:99999"], "must have a port from 1 to 65535"),
    (["--milvus-uri=http://milvus:0"], "must have a port from 1 to 65535"),
    (["--milvus-uri=http://milvus:19530/movies/more"], "must have nothing after the database"),
    (["--milvus-uri=http://milvus/movies?x=1"], "must have nothing after the database"),
    (["--milvus-timeout-s=0"], "--milvus-timeout-s: '0' must be at least 0.001"),
    (["--milvus-fallback=none"], "must be one of exact, unavailable"),
    (["--milvus-token=x"], "--milvus-token and --milvus-ca: are for --milvus-uri, which is not set"),
    (["--milvus-uri=http://milvus:19530", "--milvus-ca=ca.pem"], "write --milvus-uri with https://"),
]


@pytest.mark.parametrize(("flags", "text"), WRONG)
def test_what_names_no_milvus_is_told(flags: list[str], text: str) -> None:
    with pytest.raises(ConfigError) as failure:
        load_settings(RetrieverSettings, flags, {})
    assert text in failure.value.message


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="must not hold a user or password: give them as --milvus-token") as failure:
        load_settings(RetrieverSettings, ["--milvus-uri=http://root:hunter2@milvus:19530"], {})
    assert "hunter2" not in failure.value.message


@pytest.mark.parametrize("uri", ["http://milvus", "https://milvus:443/movies", "http://[::1]:19530"])
def test_names_of_a_milvus(uri: str) -> None:
    settings = load_settings(RetrieverSettings, [f"--milvus-uri={uri}"], {"MARQUEE_MILVUS_TOKEN": "root:hunter2"})
    shown = effective(settings)
    assert (shown["milvus_uri"], shown["milvus_token"]) == (uri, "***")


def test_without_pymilvus_a_retriever_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with (
        pytest.raises(ConfigError, match=r"--milvus-uri: needs pymilvus.*pip install 'marquee\[milvus\]'"),
        open_milvus(RetrieverSettings(milvus_uri="http://milvus:19530")),
    ):
        pass
    with open_milvus(RetrieverSettings()) as none:
        assert none is None


def test_what_is_shown_for_a_cluster_is_what_a_retriever_and_its_command_take() -> None:
    objects = rendered(Choice("dev", ("milvus",)))
    (retriever, *_) = pod_of(named(objects, "Deployment", "retriever"))["spec"]["containers"]
    (dropping,) = pod_of(named(objects, "CronJob", "retriever-drop-collections"))["spec"]["containers"]
    told = milvus_of(objects, retriever)
    assert told == milvus_of(objects, dropping)
    settings = load_settings(RetrieverSettings, [], told)
    assert settings.milvus_uri.startswith("https://")
    assert settings.milvus_ca == Path("/etc/marquee/milvus/ca.crt")
    assert dropping["command"] == ["python", "-m", "services.retriever"]
    name, *flags = dropping["args"]
    assert name == milvus_cleanup.NAME
    assert milvus_cleanup.make_parser().parse_args(flags).replica == ["retriever-headless:50052"]


def milvus_of(objects: tuple[Object, ...], container: Object) -> dict[str, str]:
    """Is a container's environment, as far as it is about the Milvus."""
    told = environment(objects, container)
    return {name: value for name, value in told.items() if name.startswith("MARQUEE_MILVUS_")}


@needs_milvus
def test_a_ca_that_is_not_there_is_told(tmp_path: Path) -> None:
    settings = RetrieverSettings(milvus_uri="https://milvus", milvus_ca=tmp_path / "ca.pem")
    with pytest.raises(ConfigError, match=r"--milvus-ca: .*ca\.pem is no file"), open_milvus(settings):
        pass


@needs_milvus
def test_a_retriever_that_may_not_compare_does_not_start_without_its_milvus(tmp_path: Path) -> None:
    registry = publish(tmp_path / "registry", make_bundle(tmp_path / "bundle")).root
    flags = [f"--registry={registry}", "--listen=127.0.0.1:0", "--log-format=text"]
    done = run_retriever(*flags, "--milvus-uri=http://127.0.0.1:1", "--milvus-fallback=unavailable")
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert "cannot be filled: Milvus at http://127.0.0.1:1: Fail connecting to server on 127.0.0.1:1" in last
    assert "see that it runs and that --milvus-uri and --milvus-token are right" in last
    assert "Traceback" not in done.stderr


class _Asks(grpc.ServerInterceptor):
    """Refuses whoever brings another token."""

    def __init__(self, token: str) -> None:
        self._expected = ("authorization", base64.b64encode(token.encode()).decode())

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        if self._expected in [tuple(pair) for pair in handler_call_details.invocation_metadata]:
            return continuation(handler_call_details)
        return grpc.unary_unary_rpc_method_handler(_refuse)


def _refuse(request: Any, context: grpc.ServicerContext) -> Any:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure, please check api key is correct")


@contextlib.contextmanager
def secured_milvus(folder: Path, ca: trustme.CA, token: str) -> Iterator[str]:
    """Runs a Milvus Lite in this process, over TLS, for who has the token; yields its address."""
    from milvus_lite.adapter.grpc.servicer import MilvusServicer
    from milvus_lite.db import MilvusLite
    from pymilvus.grpc_gen import milvus_pb2_grpc

    issued = ca.issue_cert("127.0.0.1")
    pair = issued.private_key_pem.bytes(), b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    with ThreadPoolExecutor(4) as threads, contextlib.closing(MilvusLite(str(folder / "data"))) as database:
        server = grpc.server(threads, interceptors=[_Asks(token)])
        milvus_pb2_grpc.add_MilvusServiceServicer_to_server(MilvusServicer(database), server)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
        server.start()
        try:
            yield f"https://127.0.0.1:{port}"
        finally:
            server.stop(0).wait()


@needs_milvus
def test_token_and_tls_open_a_milvus_and_nothing_else_does(tmp_path: Path) -> None:
    ca, other = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    bundle = make_bundle(tmp_path / "bundle")

    def fill(uri: str, token: str, trusted: str) -> str:
        settings = RetrieverSettings(
            milvus_uri=uri, milvus_token=token, milvus_ca=tmp_path / trusted, milvus_fallback="unavailable"
        )
        with open_milvus(settings) as milvus:
            assert milvus is not None
            return Collection(milvus, bundle).name

    with secured_milvus(tmp_path, ca, "root:hunter2") as uri:
        assert fill(uri, "root:hunter2", "ca.pem") == f"marquee_{bundle.id}"
        for token, trusted in (("root:wrong", "ca.pem"), ("root:hunter2", "other.pem")):
            with pytest.raises(BundleError, match="Milvus at https://127") as failure:
                fill(uri, token, trusted)
            assert "hunter2" not in failure.value.message
