"""Settings: flags over the environment over defaults, and every mistake in one message."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from marquee.errors import ConfigError
from services.common.settings import CommonSettings, effective, help_text, load_settings, setting
from services.retriever.settings import RetrieverSettings
from services.user_encoder.settings import UserEncoderSettings
from tests.rigs import run_service_process


@dataclasses.dataclass(frozen=True, slots=True)
class Sample(CommonSettings):
    password: str = setting("", "password of the store", secret=True)
    low: int = setting(1, "lower end, movies")
    high: int = setting(2, "upper end, movies")

    def problems(self) -> list[str]:
        return ["--low must not be above --high"] if self.low > self.high else []


def test_the_defaults_are_these() -> None:
    assert dataclasses.asdict(load_settings(RetrieverSettings, [], {})) == {
        "listen": "127.0.0.1:50052",
        "registry": Path(".marquee/registry"),
        "poll_s": 0.5,
        "reload_delay_s": 0.0,
        "retire_quiet_s": 30.0,
        "drain_s": 0.5,
        "grace_s": 10.0,
        "log_level": "info",
        "log_format": "json",
        "reflection": False,
        "threads": 1,
        "port_file": None,
        "health_port": None,
        "metrics_port": None,
        "otlp_endpoint": "",
        "trace_share": 1.0,
        "max_deadline_s": 30.0,
        "interactive_calls": 256,
        "batch_calls": 4,
        "waiting_calls": 64,
        "max_streams": 32,
        "connection_age_s": 300.0,
        "served_sample": 0.0,
        "served_folder": None,
        "served_days": 7.0,
        "served_mb": 256,
        "auth": "anonymous",
        "callers": None,
        "tls_cert": None,
        "tls_key": None,
        "tls_client_ca": None,
        "block_list": "",
        "milvus_uri": "",
        "milvus_token": "",
        "milvus_ca": None,
        "milvus_timeout_s": 0.2,
        "milvus_fallback": "exact",
    }
    assert CommonSettings().listen == "127.0.0.1:50051"


def test_flags_win_over_the_environment_over_defaults() -> None:
    environ = {"MARQUEE_POLL_S": "3", "MARQUEE_THREADS": "4", "MARQUEE_PORT_FILE": "", "POLL_S": "9"}
    settings = load_settings(CommonSettings, ["--poll-s", "2"], environ)
    assert (settings.poll_s, settings.threads, settings.grace_s, settings.port_file) == (2.0, 4, 10.0, None)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--reflection"], True),
        (["--reflection", "false"], False),
        (["--reflection=ON"], True),
        (["--reflection", "--threads=2"], True),
        ([], False),
    ],
)
def test_a_switch_needs_no_value(arguments: list[str], expected: bool) -> None:
    assert load_settings(CommonSettings, arguments, {}).reflection is expected


def test_everything_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as failure:
        load_settings(
            CommonSettings,
            ["--treads", "3", "--poll-s=soon", "--listen", "nowhere", "--log-level=loud", "--registry="],
            {"MARQUEE_GRACE_S": "-1", "MARQUEE_THREADS": "1.5", "MARQUEE_DRAIN_S": "nan"},
        )
    for problem in (
        "--treads is not a setting; did you mean --threads?",
        "--poll-s: 'soon' must be a number",
        "--listen: 'nowhere' must be host:port",
        "--log-level: 'loud' must be one of debug, info, warning, error",
        "--registry: '' must be a path",
        "MARQUEE_GRACE_S: '-1' must be at least 0",
        "MARQUEE_THREADS: '1.5' must be a whole number",
        "MARQUEE_DRAIN_S: 'nan' must be a finite number",
    ):
        assert problem in failure.value.message
    assert failure.value.message.count(";") == 8
    assert "\n" not in failure.value.message


@pytest.mark.parametrize("arguments", [["--poll-s"], ["--poll-s", "--reflection"]])
def test_a_flag_without_its_value_is_told(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match="--poll-s needs a value"):
        load_settings(CommonSettings, arguments, {})


@pytest.mark.parametrize("address", ["[::]:50051", "0.0.0.0:0", "localhost:65535"])
def test_addresses(address: str) -> None:
    flags = ["--listen", address, "--auth=keys", "--callers=callers"]
    assert load_settings(CommonSettings, flags, {}).listen == address


@pytest.mark.parametrize("address", [":::50051", "::1:50051", "localhost", "localhost:65536", ":1", "a:b", "[::1]:-1"])
def test_wrong_addresses(address: str) -> None:
    with pytest.raises(ConfigError, match="--listen"):
        load_settings(CommonSettings, ["--listen", address], {})


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.8.9.1:0", "[::1]:50051", "localhost:50051"])
def test_whoever_is_on_this_machine_may_be_anonymous(address: str) -> None:
    assert load_settings(CommonSettings, ["--listen", address], {}).auth == "anonymous"


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:50051", "10.0.0.7:50051", "marquee.internal:50051"])
def test_nobody_is_anonymous_on_an_address_that_others_reach(address: str) -> None:
    with pytest.raises(ConfigError, match="--auth anonymous lets everybody call: listen on"):
        load_settings(CommonSettings, ["--listen", address], {})


@pytest.mark.parametrize(
    ("flags", "cure"),
    [
        (["--auth=keys"], "needs --callers, .* make a key and its line with: python -m services.common.keys new"),
        (["--auth=mtls", "--callers=f"], "give --tls-client-ca"),
        (["--callers=f"], "add --auth keys or --auth mtls, or leave it away"),
        (["--tls-cert=f"], "give both, or neither"),
        (["--tls-key=f"], "give both, or neither"),
        (["--tls-client-ca=f"], "give --tls-cert and --tls-key as well"),
    ],
)
def test_half_of_a_protection_is_told(flags: list[str], cure: str) -> None:
    for settings in (CommonSettings, RetrieverSettings, UserEncoderSettings):
        with pytest.raises(ConfigError, match=cure):
            load_settings(settings, flags, {})


def test_settings_that_do_not_go_together_are_told() -> None:
    with pytest.raises(ConfigError, match="--low must not be above --high"):
        load_settings(Sample, ["--low=3"], {})
    assert load_settings(Sample, ["--low=3", "--high=3"], {}).low == 3


def test_what_contradicts_is_told_together_with_what_is_wrong_by_itself() -> None:
    with pytest.raises(ConfigError) as failure:
        load_settings(CommonSettings, ["--poll-s=soon", "--callers=f", "--tls-cert=f"], {"MARQUEE_THREADS": "0"})
    told = failure.value.message
    for part in ("--poll-s: 'soon'", "MARQUEE_THREADS: '0'", "--callers counts for nothing", "--tls-cert and "):
        assert part in told
    assert told.count("; ") == 3


@pytest.mark.parametrize(
    ("flags", "environ"),
    [
        # What --auth was to be is not known, nor therefore whether the file of callers has a use.
        (["--auth=kyes", "--callers=f"], {}),
        (["--callers=f"], {"MARQUEE_AUTH": "kyes"}),
        (["--tls-key=f", "--tls-crt=f"], {}),
    ],
)
def test_a_misread_setting_contradicts_nothing(flags: list[str], environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as failure:
        load_settings(CommonSettings, flags, environ)
    assert "; " not in failure.value.message.replace("; did you", "")


def test_a_misread_setting_silences_none_whose_name_begins_alike() -> None:
    flags = ["--store=redis://a:1", "--store-timeout-s=soon"]
    with pytest.raises(ConfigError, match="--store-key is missing"):
        load_settings(UserEncoderSettings, flags, {})
    flags = ["--store=f", "--replicas=2", "--store-timeout-s=soon"]
    with pytest.raises(ConfigError, match="--store f is a SQLite file"):
        load_settings(UserEncoderSettings, flags, {})


@pytest.mark.parametrize(
    ("cls", "flags", "cure"),
    [
        (CommonSettings, ["--served-folder=f"], "give --served-sample as well, such as 0.01"),
        (UserEncoderSettings, ["--served-sample=0.1"], "name a --served-folder"),
        (CommonSettings, ["--served-sample=1.5"], "--served-sample: '1.5' must be at most 1"),
    ],
)
def test_a_sample_without_a_use_is_told(cls: type[CommonSettings], flags: list[str], cure: str) -> None:
    with pytest.raises(ConfigError, match=cure):
        load_settings(cls, flags, {})
    assert load_settings(RetrieverSettings, ["--served-sample=0.1"], {}).served_sample == 0.1


def test_help_lists_every_setting_with_flag_variable_default_and_unit() -> None:
    text = help_text(CommonSettings, "python -m services.x", "Does x.")
    for field in dataclasses.fields(CommonSettings):
        assert f"  --{field.name.replace('_', '-')}  MARQUEE_{field.name.upper()}\n" in text
        assert text.count("(default: ") == len(dataclasses.fields(CommonSettings))
    assert "Does x." in text
    assert "one of debug, info, warning, error (default: info)" in text


def test_a_secret_is_never_shown() -> None:
    settings = load_settings(Sample, [], {"MARQUEE_PASSWORD": "hunter2"})
    assert settings.password == "hunter2"
    assert effective(settings)["password"] == "***"
    assert effective(Sample())["password"] == ""


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("MARQUEE_METRIC_PORT", "MARQUEE_METRICS_PORT"),
        ("MARQUEE_POLLS", "MARQUEE_POLL_S"),
        ("MARQUEE_REGISTRYS", "MARQUEE_REGISTRY"),
        ("MARQUEE_BLOCKLIST", "MARQUEE_BLOCK_LIST"),
    ],
)
def test_a_variable_that_is_almost_a_settings_is_a_mistake(variable: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"^{variable} is not a setting; did you mean {meant}\\?"):
        load_settings(RetrieverSettings, [], {variable: "1"})


@pytest.mark.parametrize("cls", [RetrieverSettings, UserEncoderSettings])
def test_variables_of_other_programs_are_left_alone(cls: type[CommonSettings]) -> None:
    fields = {*dataclasses.fields(RetrieverSettings), *dataclasses.fields(UserEncoderSettings)}
    others = {field.name for field in fields} - {field.name for field in dataclasses.fields(cls)}
    others |= {"api_key", "encoder", "retriever", "operator_token"}
    load_settings(cls, [], {f"MARQUEE_{name.upper()}": "?" for name in others})


@pytest.mark.parametrize("service", ["retriever", "user_encoder"])
def test_a_service_says_what_it_would_run_with(service: str) -> None:
    done = run_service_process(service, "--check-config", "--threads=2", "--metrics-port=9090")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["threads"], told["metrics_port"], told["auth"]) == (2, 9090, "anonymous")


@pytest.mark.parametrize("flags", [["--check-config"], []])
@pytest.mark.parametrize("service", ["retriever", "user_encoder"])
def test_a_service_says_all_that_is_wrong_with_what_it_would_run_with(service: str, flags: list[str]) -> None:
    done = run_service_process(service, *flags, "--threads=0", "--auth=keys", "--metric-port=1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    for told in ("--threads: '0' must be at least 1", "did you mean --metrics-port?", "--auth keys needs --callers"):
        assert told in done.stderr


def test_secrets_are_not_shown_by_the_check() -> None:
    done = run_service_process(
        "retriever", "--check-config", "--milvus-uri=http://milvus:19530", "--milvus-token=user:word"
    )
    assert json.loads(done.stdout)["milvus_token"] == "***"
