"""Who may call: keys and client certificates against every rpc of real services."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc.aio
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from marquee.errors import ConfigError, PermissionDenied, Unauthenticated
from services.common.auth import auth_of
from services.common.callers import Caller, parse_callers
from services.common.policy import POLICY, Role
from services.common.settings import CommonSettings
from services.user_encoder.stores.sqlite import SqliteStore
from tests.bundles import make_bundle
from tests.encoder_rigs import encoder_on
from tests.rigs import ROOT, eventually, publish, retriever, run_retriever
from tests.secured import HOST, bearer, certified, code_of, connect, enroll, refusal, trusting

SEARCH = "/marquee.v1.RetrieverService/Search"
RECORD = "/marquee.v1.LiveFeaturesService/RecordEvents"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
RPCS = sorted(POLICY.keys() - {REFLECTION})


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("auth")
    return publish(folder / "registry", make_bundle(folder / "bundle", movies=20)).root


@pytest.fixture
def callers(tmp_path: Path) -> Path:
    path = tmp_path / "callers"
    path.write_text("# who may call\n\n")
    return path


@pytest.fixture
async def channel_for(
    registry: Path, callers: Path, tmp_path: Path
) -> AsyncIterator[Callable[[str], grpc.aio.Channel]]:
    """Runs both services with keys; finds the channel to the one that has a method."""
    store = SqliteStore(tmp_path / "features.sqlite")
    async with (
        encoder_on(store, registry, auth="keys", callers=callers) as encoder,
        retriever(registry, auth="keys", callers=callers, reflection=True) as rig,
        grpc.aio.insecure_channel(f"{HOST}:{encoder.port}") as to_encoder,
    ):
        of_encoder = ("/marquee.v1.UserEncoderService/", "/marquee.v1.LiveFeaturesService/")
        yield lambda method: to_encoder if method.startswith(of_encoder) else rig.channel


Channels = Callable[[str], grpc.aio.Channel]


async def lets_in(channel: grpc.aio.Channel, method: str, key: str) -> bool:
    return await code_of(channel, method, bearer(key)) not in REFUSED


@pytest.mark.parametrize("roles", [(role,) for role in Role] + [(Role.READER, Role.RECORDER)], ids="-".join)
async def test_a_role_may_call_what_the_table_says_and_nothing_else(
    callers: Path, channel_for: Channels, roles: tuple[Role, ...]
) -> None:
    key = enroll(callers, "someone", *roles)
    await eventually(lambda: knows(channel_for, key))
    for method in RPCS:
        allowed = Role.ADMIN in roles or POLICY[method] in roles
        code = await code_of(channel_for(method), method, bearer(key))
        assert (code not in REFUSED) == allowed, (method, code)
        # Where the method was reached, it told what is wrong with an empty request, or answered.
        assert code is not grpc.StatusCode.UNIMPLEMENTED, method


async def knows(channel_for: Channels, key: str) -> bool:
    codes = [await code_of(channel_for(method), method, bearer(key)) for method in (SEARCH, RECORD)]
    return grpc.StatusCode.UNAUTHENTICATED not in codes


async def test_without_a_key_or_with_a_wrong_one_nothing_is_answered(callers: Path, channel_for: Channels) -> None:
    key = enroll(callers, "web", Role.ADMIN)
    await eventually(lambda: knows(channel_for, key))
    last = "A" if key[-1] != "A" else "B"
    wrong = [
        (),
        (("authorization", ""),),
        (("authorization", key),),
        (("authorization", f"Basic {key}"),),
        (("x-api-key", key),),
        *map(bearer, ("", "web", "web.", key[:-1], key[:-1] + last, key + "A", f" {key}", key.upper())),
        *map(bearer, (key.replace("web.", "admin."), key.replace("web.", ""))),
    ]
    for metadata in wrong:
        for method in RPCS:
            code = await code_of(channel_for(method), method, metadata)
            assert code is grpc.StatusCode.UNAUTHENTICATED, (method, metadata)


async def test_a_refusal_says_what_to_do_and_shows_no_key(callers: Path, channel_for: Channels) -> None:
    key = enroll(callers, "web", Role.READER)
    await eventually(lambda: knows(channel_for, key))
    nobody = await refusal(channel_for(SEARCH), SEARCH)
    assert isinstance(nobody, Unauthenticated)
    assert str(nobody) == "the call has no key; send it as the metadata `authorization: Bearer KEY`"
    stranger = await refusal(channel_for(SEARCH), SEARCH, bearer("web.guess"))
    assert isinstance(stranger, Unauthenticated)
    assert "guess" not in str(stranger)
    assert "mistyped, for another service, or no longer valid" in str(stranger)
    reader = await refusal(channel_for(RECORD), RECORD, bearer(key))
    assert isinstance(reader, PermissionDenied)
    assert str(reader) == (
        f"web may not call {RECORD}: it has the role reader, and the call needs recorder; ask whoever runs the service"
    )


async def test_a_scheme_is_a_word_in_any_case(callers: Path, channel_for: Channels) -> None:
    key = enroll(callers, "web", Role.READER)
    await eventually(lambda: knows(channel_for, key))
    assert await code_of(channel_for(SEARCH), SEARCH, (("authorization", f"bearer {key}"),)) not in REFUSED


async def test_keys_are_changed_and_taken_back_without_a_restart(callers: Path, channel_for: Channels) -> None:
    """A name has two keys while its programs change from one to the other."""
    channel = channel_for(SEARCH)
    old = enroll(callers, "web", Role.READER)
    before = callers.read_text()
    new = enroll(callers, "web", Role.READER)
    await eventually(lambda: lets_in(channel, SEARCH, new))
    assert await lets_in(channel, SEARCH, old)
    callers.write_text(callers.read_text().removeprefix(before))
    await eventually(lambda: is_refused(channel, old))
    assert await lets_in(channel, SEARCH, new)
    callers.write_text("")
    await eventually(lambda: is_refused(channel, new))


async def is_refused(channel: grpc.aio.Channel, key: str) -> bool:
    return not await lets_in(channel, SEARCH, key)


async def test_a_bad_file_keeps_the_last_good_one(
    callers: Path, channel_for: Channels, caplog: pytest.LogCaptureFixture
) -> None:
    channel, key = channel_for(SEARCH), enroll(callers, "web", Role.READER)
    await eventually(lambda: knows(channel_for, key))
    caplog.clear()
    callers.write_text("web reader\n")
    await eventually(lambda: caplog.text.count("until then it lets 1 callers in") == 2)
    assert f"{callers}:1: has 2 words; write NAME ROLE,ROLE and sha256:… or certificate" in caplog.text
    assert await lets_in(channel, SEARCH, key)
    caplog.clear()
    callers.unlink()
    await eventually(lambda: caplog.text.count("cannot be read (No such file") == 2)
    assert await lets_in(channel, SEARCH, key)


async def test_health_asks_for_no_key_and_reflection_for_an_admins(callers: Path, channel_for: Channels) -> None:
    reader, admin = enroll(callers, "web", Role.READER), enroll(callers, "ops", Role.ADMIN)
    await eventually(lambda: knows(channel_for, admin))
    channel = channel_for(SEARCH)
    health = health_pb2_grpc.HealthStub(channel)
    assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=10)).status == 1
    watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=10)
    assert (await watch.read()).status == 1
    watch.cancel()
    assert await reflected(channel, admin) == "OK"
    assert await reflected(channel, reader) == "PERMISSION_DENIED"
    assert await reflected(channel, "nobody.x") == "UNAUTHENTICATED"


async def reflected(channel: grpc.aio.Channel, key: str) -> str:
    """Asks for a server's services; returns the status."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="*")
    call = stub.ServerReflectionInfo(iter([request]), metadata=bearer(key), timeout=10)
    with contextlib.suppress(grpc.aio.AioRpcError):
        [answer] = [answer async for answer in call]
        assert "marquee.v1.RetrieverService" in str(answer)
    code = await call.code()
    return str(code.name)


async def test_reflection_is_off_unless_asked_for(registry: Path) -> None:
    async with retriever(registry) as rig:
        assert await reflected(rig.channel, "nobody.x") == "UNIMPLEMENTED"


async def test_a_client_certificate_tells_who_calls(registry: Path, callers: Path, tmp_path: Path) -> None:
    ca = trustme.CA()
    files, authority = certified(tmp_path, ca.issue_cert(HOST)), tmp_path / "clients.pem"
    authority.write_bytes(ca.cert_pem.bytes())
    callers.write_text("web.internal reader certificate\ntracker recorder certificate\n")
    key = enroll(callers, "other.internal", Role.ADMIN)
    tls = {"tls_cert": files.cert, "tls_key": files.key, "tls_client_ca": authority}
    store = SqliteStore(tmp_path / "features.sqlite")
    settings = {**tls, "auth": "mtls", "callers": callers}
    async with encoder_on(store, registry, credentials=trusting(ca, ca.issue_cert("x")), **settings) as encoder:
        encode = "/marquee.v1.UserEncoderService/Encode"

        async def codes(mine: trustme.LeafCert) -> list[str]:
            async with connect(encoder.port, trusting(ca, mine)) as channel:
                found = [await code_of(channel, method, bearer(key)) for method in (encode, RECORD)]
            return [code.name if code in REFUSED else "LET_IN" for code in found]

        assert await codes(ca.issue_cert("web.internal")) == ["LET_IN", "PERMISSION_DENIED"]
        # One of several names is enough; a common name counts where there is no other.
        assert await codes(ca.issue_cert("a.internal", "web.internal")) == ["LET_IN", "PERMISSION_DENIED"]
        assert await codes(ca.issue_cert(common_name="tracker")) == ["PERMISSION_DENIED", "LET_IN"]
        assert await codes(ca.issue_cert("a.internal", common_name="tracker")) == ["UNAUTHENTICATED"] * 2
        # A key is no proof here, and the name of a caller with a key is none either.
        assert await codes(ca.issue_cert("other.internal")) == ["UNAUTHENTICATED"] * 2


def test_a_service_that_asks_for_keys_needs_its_file(registry: Path, tmp_path: Path) -> None:
    done = run_retriever(f"--registry={registry}", "--auth=keys", f"--callers={tmp_path / 'gone'}")
    assert done.returncode == 2
    assert "gone: cannot be read (No such file or directory); put the file back, or name another with" in done.stderr


def test_anonymous_callers_are_of_this_machine(registry: Path) -> None:
    done = run_retriever(f"--registry={registry}", "--listen=0.0.0.0:0")
    assert done.returncode == 2
    assert "listen on 127.0.0.1, or give --auth keys or --auth mtls with --callers FILE" in done.stderr


def test_settings_that_were_not_checked_let_nobody_in() -> None:
    with pytest.raises(ConfigError, match="--auth keys needs --callers"):
        auth_of(CommonSettings(auth="keys"))
    assert auth_of(CommonSettings()) is None


HASH = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("web", "has 1 words; write NAME ROLE,ROLE and sha256:… or certificate"),
        (f"web reader {HASH} {HASH}", "has 4 words"),
        (f"wéb reader {HASH}", "the name is none"),
        (f"{'w' * 256} reader {HASH}", "the name is none"),
        (f"web king {HASH}", "one of the roles is none; write one or more of reader, recorder, admin"),
        (f"web reader, {HASH}", "one of the roles is none"),
        (f"web Reader {HASH}", "one of the roles is none"),
        ("web reader sha256:abc", "must be sha256: and 64 lower-case hexadecimal digits"),
        (f"web reader {HASH.upper()}", "must be sha256:"),
        ("web reader web.secret-key", "must be sha256:"),
        ("\0", "has 1 words"),
    ],
)
def test_a_bad_line_is_told_with_its_number_and_without_what_it_says(line: str, told: str) -> None:
    text = f"# callers\r\n\nops admin {HASH} # a comment\r\n{line}\n".encode()
    with pytest.raises(ConfigError, match=re.escape(told)) as refused:
        parse_callers(Path("callers"), text)
    assert refused.value.message.startswith("callers:4: ")
    assert "secret" not in refused.value.message


def test_a_file_of_callers_is_read() -> None:
    text = f"\ufeff# nobody\nweb reader,recorder {HASH}\nspiffe://a/ns/b admin certificate".encode()
    callers = parse_callers(Path("callers"), text)
    assert len(callers) == 2
    assert callers.by_names(["x", "spiffe://a/ns/b"]) == Caller("spiffe://a/ns/b", frozenset({Role.ADMIN}), None)
    assert callers.by_names(["web"]) is None
    assert len(parse_callers(Path("callers"), b"")) == 0


def test_two_lines_for_one_certificate_are_refused_and_two_keys_of_a_name_are_not() -> None:
    with pytest.raises(ConfigError, match="callers:2: a line above names the same certificate") as refused:
        parse_callers(Path("callers"), b"ops reader certificate\nops admin certificate")
    assert "ops" not in refused.value.message
    assert (
        len(parse_callers(Path("callers"), f"ops reader {HASH}\nops admin {HASH}\nops admin certificate".encode())) == 3
    )


def new_key(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "services.common.keys", "new", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_makes_a_key_and_its_line() -> None:
    printed = new_key("--name", "web", "--role", "reader", "--role", "recorder").stdout.splitlines()
    key, line = printed[1].strip(), printed[3].strip()
    assert re.fullmatch(r"web\.[\w-]{43}", key)
    assert re.fullmatch(r"web reader,recorder sha256:[0-9a-f]{64}", line)
    found = parse_callers(Path("callers"), line.encode()).by_key(key)
    assert found is not None
    assert (found.name, sorted(found.roles)) == ("web", [Role.READER, Role.RECORDER])
    assert key not in new_key("--name", "web", "--role", "reader").stdout


@pytest.mark.parametrize("arguments", [["--name", "web"], ["--name", "w b", "--role", "reader"], ["--role", "king"]])
def test_the_command_refuses_what_is_no_caller(arguments: list[str]) -> None:
    done = new_key(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_a_role_that_is_none_is_told_as_roles_are_written() -> None:
    assert "'king' (choose from 'reader', 'recorder', 'admin')" in new_key("--name", "web", "--role", "king").stderr
