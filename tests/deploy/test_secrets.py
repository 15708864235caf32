"""The Secrets of a first deployment open what they are for."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path

import kubernetes_validate
import pytest

from deploy.make_secrets import CALLERS, main
from services.common.callers import parse_callers
from services.common.policy import POLICY, Role
from services.user_encoder.stores.redis_url import parse_redis_url
from tests.deploy.rendering import OVERLAYS, environment, everything, pods

Secrets = Mapping[str, Mapping[str, bytes]]


@pytest.fixture
def made(capsys: pytest.CaptureFixture[str]) -> Secrets:
    assert main(["--redis=redis.example.com:6380"]) == 0
    items = json.loads(capsys.readouterr().out)["items"]
    for item in items:
        kubernetes_validate.validate(item, "1.37", strict=True)
    return {
        item["metadata"]["name"]: {key: base64.b64decode(value) for key, value in item["data"].items()}
        for item in items
    }


def test_each_key_lets_its_caller_in_by_key_and_by_certificate(made: Secrets) -> None:
    callers = parse_callers(Path("callers"), made["callers"]["callers"])
    assert made["api-keys"].keys() == CALLERS.keys()
    for name, key in made["api-keys"].items():
        by_key, by_name = callers.by_key(key.decode()), callers.by_names([name])
        assert by_key is not None
        assert by_name is not None
        assert by_key.name == by_name.name == name
        assert by_key.roles == by_name.roles == set(CALLERS[name])


def test_the_page_may_show_and_forget_what_people_said(made: Secrets) -> None:
    page = parse_callers(Path("callers"), made["callers"]["callers"]).by_names(["web"])
    assert page is not None
    for rpc in ("RecordEvents", "GetHistory", "DeleteUser"):
        assert page.roles & {Role.ADMIN, POLICY[f"/marquee.v1.LiveFeaturesService/{rpc}"]}


def test_the_store_has_a_url_with_its_password_and_a_key(made: Secrets) -> None:
    store = made["store"]
    parse_redis_url(store["url"].decode())
    assert store["url"] == b"redis://:" + store["password"] + b"@redis.example.com:6380/0"
    assert len(store["key"]) == 32


def test_every_run_makes_others(made: Secrets, capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    again = json.loads(capsys.readouterr().out)["items"]
    for item in again:
        assert all(made[item["metadata"]["name"]][key] != base64.b64decode(text) for key, text in item["data"].items())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_ask_for_nothing_that_is_not_made(made: Secrets, overlay: str) -> None:
    # What others make: cert-manager, who runs a Milvus, who has the page's public certificate.
    elsewhere = {"user-encoder-tls", "retriever-tls", "web-tls", "operator-tls", "milvus"}
    objects = everything(overlay)
    for _, template in pods(objects):
        for volume in template["spec"]["volumes"]:
            secret = volume.get("secret")
            if secret and secret["secretName"] not in elsewhere:
                names = {item["key"] for item in secret.get("items", [])}
                assert names <= made[secret["secretName"]].keys()
        for container in template["spec"]["containers"]:
            for value in environment(objects, container).values():
                _, _, reference = value.partition("secret:")
                name, _, key = reference.partition(":")
                assert not name or name in elsewhere or key in made[name]
