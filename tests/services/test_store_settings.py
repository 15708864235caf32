"""The settings of the store: what names one, what is refused, and that no password is shown."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

import pytest

from marquee.errors import ConfigError
from services.common.settings import effective, help_text, load_settings
from services.user_encoder.settings import UserEncoderSettings
from services.user_encoder.stores.opening import open_store
from services.user_encoder.stores.redis_url import RedisUrl, parse_redis_url
from services.user_encoder.stores.tags import KEY_BYTES, make_tags

LOGIN = {"username": "ada", "password": "p@ss:w/rd"}
FILES = {"ssl_ca_certs": "/ca.pem", "ssl_certfile": "/c.pem", "ssl_keyfile": "/k.pem"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://store", RedisUrl(False, False, (("store", 6379),), {})),
        ("redis://10.0.0.1:7000/3", RedisUrl(False, False, (("10.0.0.1", 7000),), {"db": 3})),
        ("redis://[::1]:7000/", RedisUrl(False, False, (("::1", 7000),), {})),
        ("redis://ada:p%40ss%3Aw%2Frd@store", RedisUrl(False, False, (("store", 6379),), LOGIN)),
        ("redis://:x@store", RedisUrl(False, False, (("store", 6379),), {"password": "x"})),
        ("rediss://store?ca=/ca.pem&cert=/c.pem&key=/k.pem", RedisUrl(False, True, (("store", 6379),), FILES)),
        ("redis+cluster://a:1,b:2,[::1]", RedisUrl(True, False, (("a", 1), ("b", 2), ("::1", 6379)), {})),
        ("rediss+cluster://ada:p%40ss%3Aw%2Frd@a,b/0", RedisUrl(True, True, (("a", 6379), ("b", 6379)), LOGIN)),
    ],
)
def test_urls(url: str, expected: RedisUrl) -> None:
    assert parse_redis_url(url) == expected


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://store", "start with redis://, rediss://, redis+cluster://, rediss+cluster://"),
        ("redis://", "host:port"),
        ("redis://store:port", "host:port"),
        ("redis://store:65536", "host:port"),
        ("redis://a,b", "several hosts, as only redis+cluster:// and rediss+cluster:// may"),
        ("redis+cluster://a,", "host:port"),
        ("redis+cluster://a/1", "0 in a Cluster"),
        ("redis://store/one", "the database's number"),
        ("redis://store?ca=/ca.pem", "of TLS, and by nothing else"),
        ("rediss://store?password=hush", "of TLS, and by nothing else"),
        ("rediss://store#part", "of TLS, and by nothing else"),
    ],
)
def test_wrong_urls_are_refused_without_their_password(url: str, problem: str) -> None:
    for login in ("", "ada:hush@"):
        with pytest.raises(ConfigError) as caught:
            load_settings(UserEncoderSettings, ["--store", url.replace("://", f"://{login}")], {})
        assert problem in caught.value.message
        assert "hush" not in caught.value.message


def test_a_password_that_is_not_percent_encoded_is_not_shown() -> None:
    for password in ("hu@sh", "hu/sh", "hu#sh", "hu?sh", "hu:sh"):
        with pytest.raises(ConfigError) as caught:
            load_settings(UserEncoderSettings, [f"--store=redis://ada:{password}@store", "--wrong"], {})
        assert password not in caught.value.message
        assert "sh@" not in caught.value.message


@pytest.mark.parametrize("login", ["ada:hush@", ":hush@", "ada:hu@sh:hush@", "hush@"])
def test_no_password_is_shown(login: str) -> None:
    url = f"redis+cluster://{login}10.0.0.1:7000,10.0.0.2:7000"
    settings = load_settings(UserEncoderSettings, ["--store", url, "--store-key", "/key"], {})
    assert effective(settings)["store"] == "redis+cluster://***@10.0.0.1:7000,10.0.0.2:7000"
    assert effective(UserEncoderSettings())["store"] == ".marquee/features.sqlite"


def test_the_help_spells_every_kind_of_store() -> None:
    text = " ".join(help_text(UserEncoderSettings, "encoder", "").split())
    for kind in ("SQLite file", "redis://USER:PASSWORD@HOST:PORT/DB", "redis+cluster://HOST:PORT,HOST:PORT", "rediss"):
        assert kind in text


def test_a_file_is_refused_where_replicas_share_it() -> None:
    with pytest.raises(ConfigError, match=r"is a SQLite file, which 3 replicas .* cannot share; name a Redis"):
        load_settings(UserEncoderSettings, ["--replicas=3"], {})
    with pytest.raises(ConfigError, match="cannot share"):
        open_store(UserEncoderSettings(replicas=2))


def test_a_redis_needs_the_key_that_all_share(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--store-key is missing, .*head -c 32 /dev/urandom > store\.key"):
        load_settings(UserEncoderSettings, ["--store=redis://store"], {})
    arguments = ["--store=redis://store", f"--store-key={tmp_path / 'absent'}", "--replicas=3"]
    with pytest.raises(ConfigError, match=r"MARQUEE_STORE_KEY: .*absent cannot be read .*/dev/urandom"):
        open_store(load_settings(UserEncoderSettings, arguments, {}))
    assert not (tmp_path / "absent").exists()


async def test_a_store_is_opened_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "key").write_bytes(bytes(KEY_BYTES))
    for name, kind in (("~/a.sqlite", "sqlite"), ("redis://store", "redis"), ("redis+cluster://a,b", "redis")):
        async with aclosing(open_store(UserEncoderSettings(store=name, store_key=tmp_path / "key"))) as store:
            assert store.kind == kind
            assert store.digest("ada") == make_tags(tmp_path / "key").of("ada")
    assert (tmp_path / "a.sqlite").exists()


def test_many_who_make_a_key_at_once_get_the_same(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "key"
    with ThreadPoolExecutor(16) as threads:
        tags = list(threads.map(lambda _: make_tags(path).of("ada"), range(64)))
    assert len(set(tags)) == 1
    assert os.listdir(path.parent) == ["key"]


@pytest.mark.parametrize("other", ["Ada", "ad", "ada ", "\u00e5da"])
def test_a_tag_is_of_one_person(tmp_path: Path, other: str) -> None:
    tags = make_tags(tmp_path / "key")
    assert tags.of("ada") != tags.of(other)
    assert make_tags(tmp_path / "other").of("ada") != tags.of("ada")
