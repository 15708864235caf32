"""Pages, forms and headers, asked for without a browser."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.bundles import movie_record
from tests.rigs import DEADLINE_S, ROOT
from tests.web.rigs import Answer, Caller, Page, web_page

LIKED = movie_record(8)
FILM = LIKED.movie_id
SCRIPT = {"X-Requested-With": "marquee"}


def opinion(token: str, verdict: str = "like", **more: str) -> dict[str, str]:
    return {"token": token, "verdict": verdict, **more}


def stated(caller: Caller) -> list[str]:
    return re.findall(r'<li data-film="(\d+)">', caller.get("/yours").text)


@pytest.mark.parametrize(
    "path", ["/", "/search?q=harbor", f"/films/{FILM}", "/yours", "/operator", "/nothing", "/films/2"]
)
def test_every_page_tells_the_browser_what_it_may(caller: Caller, path: str) -> None:
    answer = caller.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers
    # What the policy forbids is not there either: inline styles, scripts and handlers.
    assert not re.search(r"<[^>]*\s(style|on\w+)=|<script>|<style", answer.text)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing", 404),
        ("/films/2", 404),
        ("/films/9223372036854775808", 404),
        ("/films/99999999999999999999", 404),
        # One digit more than Python makes an int of.
        ("/films/" + 4301 * "9", 404),
        ("/films/-1", 404),
        ("/films/%D9%A2", 404),
        ("/forget", 405),
    ],
    ids=lambda value: str(value)[:32],
)
def test_what_is_not_there_has_a_page_that_says_so(caller: Caller, path: str, status: int) -> None:
    answer = caller.get(path)
    assert answer.status == status
    assert '<a href="/">To the films</a>' in answer.text


def test_a_session_is_a_signed_cookie_that_scripts_cannot_read(caller: Caller) -> None:
    first = caller.get("/")
    cookie = first.cookies["marquee_session"]
    assert re.match(r"web-[\w-]{22}\.[\w-]{43};", cookie)
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert "marquee_session" not in caller.get("/").cookies


@pytest.mark.parametrize("cookie", ["42", "42.", ".", "web-a.b", "42.AAAA", "\xff.x", "x" * 3000])
def test_nobody_chooses_who_they_are(caller: Caller, cookie: str) -> None:
    caller.cookies["marquee_session"] = cookie
    answer = caller.get("/")
    assert answer.status == 200
    assert answer.cookies["marquee_session"].startswith("web-")


def test_an_opinion_needs_the_token_of_its_session(page_of_all: Page, caller: Caller) -> None:
    with contextlib.closing(Caller(page_of_all)) as other:
        others = other.get("/").token
    mine = caller.get("/").token
    for token in ("", "x", others, mine + "x"):
        answer = caller.post(f"/films/{FILM}/opinion", opinion(token))
        assert answer.status == 403
        assert "Load this page again" in answer.text
        assert caller.post(f"/films/{FILM}/opinion", opinion(token), SCRIPT).status == 403
        assert caller.post("/forget", {"token": token}).status == 403
    assert stated(caller) == []
    assert caller.post(f"/films/{FILM}/opinion", opinion(mine)).status == 303
    assert stated(caller) == [str(FILM)]


def test_without_a_script_a_click_leads_back_and_says_what_was_done_once(caller: Caller) -> None:
    token = caller.get("/").token
    answer = caller.post(f"/films/{FILM}/opinion", opinion(token, back="/search?q=harbor"))
    assert (answer.status, answer.headers["location"]) == (303, "/search?q=harbor")
    said = f"Noted: you like {LIKED.title}."
    assert said in caller.get("/search?q=harbor").text
    assert said not in caller.get("/search?q=harbor").text


def test_what_is_told_is_ours(caller: Caller) -> None:
    caller.cookies["marquee_told"] = quote("Your account is locked, call us.AAAA")
    assert "locked" not in caller.get("/").text


@pytest.mark.parametrize(
    "back", ["//evil.example", "/\\evil.example", "https://evil.example", "", "javascript:alert(1)"]
)
def test_a_form_leads_nowhere_else(caller: Caller, back: str) -> None:
    token = caller.get("/").token
    assert caller.post(f"/films/{FILM}/opinion", opinion(token, back=back)).headers["location"] == "/"


def test_the_script_gets_the_new_list_with_the_answer(caller: Caller) -> None:
    token = caller.get("/").token
    fields = opinion(token, part="home", back="/?genre=Comedy", shown="1,4")
    told = json.loads(caller.post(f"/films/{FILM}/opinion", fields, SCRIPT).text)
    assert told["done"]
    assert re.fullmatch(rf"Noted: you like {LIKED.title}\. \d+ films are new in your list\.", told["told"])
    assert "Your list" in told["html"]
    assert f'data-film="{FILM}"' not in told["html"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"verdict": "rate", "stars": "9"}, "Rate a film with 0.5 to 5 stars, in halves."),
        ({"verdict": "rate", "stars": "nan"}, "Rate a film with 0.5 to 5 stars, in halves."),
        ({"verdict": "rate"}, "Rate a film with 0.5 to 5 stars, in halves."),
        ({"verdict": "adore"}, "Say like, dislike, rate or take back."),
        ({"verdict": "like", "led_by": "\x00\ud83c"}, ""),
    ],
)
def test_odd_opinions_are_answered_in_a_sentence(caller: Caller, fields: dict[str, str], said: str) -> None:
    token = caller.get("/").token
    sent = {"token": token, **{name: value.encode("utf-8", "replace").decode() for name, value in fields.items()}}
    answer = caller.post(f"/films/{FILM}/opinion", sent, SCRIPT)
    assert answer.status == 200
    assert said in json.loads(answer.text)["told"]


def test_an_opinion_of_no_film_has_no_place(caller: Caller) -> None:
    token = caller.get("/").token
    answer = caller.post(f"/films/{4301 * '9'}/opinion", opinion(token))
    assert (answer.status, "There is no page at this address." in answer.text) == (404, True)


@pytest.mark.parametrize("stars", ["0.5", "3", "3.0", "4.5", "5"])
def test_a_rating_is_noted_and_taken_back(caller: Caller, stars: str) -> None:
    token = caller.get("/").token
    caller.post(f"/films/{FILM}/opinion", opinion(token, "rate", stars=stars))
    assert f"You gave it {float(stars):g} star" in caller.get(f"/films/{FILM}").text
    caller.post(f"/films/{FILM}/opinion", opinion(token, "take_back"))
    assert stated(caller) == []


def test_who_is_forgotten_is_somebody_new(caller: Caller) -> None:
    token = caller.get("/").token
    caller.post(f"/films/{FILM}/opinion", opinion(token))
    before = caller.cookies["marquee_session"]
    assert caller.post("/forget", {"token": token, "sure": "yes"}).headers["location"] == "/"
    assert "Everything that you said is deleted." in caller.get("/").text
    assert caller.cookies["marquee_session"] != before
    caller.cookies["marquee_session"] = before
    assert stated(caller) == []


def test_the_pages_own_files_are_kept_for_ever(caller: Caller) -> None:
    urls = set(re.findall(r'"(/static/[^"]+)"', caller.get("/").text))
    assert {url.rpartition(".")[2] for url in urls} == {"css", "js", "svg"}
    for url in urls:
        answer = caller.get(url)
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert caller.get(url, {"If-None-Match": answer.headers["etag"]}).status == 304
        assert "set-cookie" not in answer.headers
    assert caller.get("/static/../settings.py").status == 404


@pytest.mark.parametrize("query", ["from=199", "from=2000&to=1990", "language=french", "genre=" + "x" * 70])
def test_filters_that_are_none_are_answered_in_a_sentence(caller: Caller, query: str) -> None:
    answer = caller.get(f"/?{query}")
    assert answer.status == 200
    assert '<p class="notice refused">' in answer.text


@pytest.mark.parametrize(
    "path", ["/?%ff=%00&genre=%F0%9F", "/search?q=%00%ff", "/search?q=" + "x" * 9000, "/parts/search"]
)
def test_odd_queries_are_no_errors(caller: Caller, path: str) -> None:
    assert caller.get(path).status == 200


def test_a_form_that_is_too_large_is_refused(caller: Caller) -> None:
    token = caller.get("/").token
    answer = caller.post(f"/films/{FILM}/opinion", opinion(token, back="x" * 20_000))
    assert answer.status == 413


def stop(page: Page) -> int:
    page.process.terminate()
    return page.process.wait(DEADLINE_S)


def test_whoever_asks_too_often_is_told_to_wait(page_of_all: Page, tmp_path: Path) -> None:
    addresses = page_of_all.encoder, page_of_all.retriever
    with (
        web_page(tmp_path, *addresses, "--rate", "1", "--deadline", "10") as page,
        contextlib.closing(Caller(page)) as caller,
    ):
        answers = [caller.get("/healthz")] + [caller.get("/parts/search") for _ in range(80)]
        refused = [answer for answer in answers if answer.status == 429]
        assert refused
        assert int(refused[0].headers["retry-after"]) >= 1
        assert "Wait a second" in refused[0].text
        assert caller.get("/healthz").status == 200


def test_ten_thousand_clicks_do_no_harm(page_of_all: Page, tmp_path: Path) -> None:
    addresses = page_of_all.encoder, page_of_all.retriever
    with web_page(tmp_path, *addresses, "--rate", "50", "--deadline", "10") as page:
        with contextlib.closing(Caller(page)) as caller:
            token = caller.get("/").token
            statuses = {caller.post(f"/films/{FILM}/opinion", opinion(token), SCRIPT).status for _ in range(10_000)}
            assert statuses == {200, 429}
        with contextlib.closing(Caller(page)) as other:
            # A person who clicks on without end is refused as one person; the next one is served.
            answers = [other.get("/healthz").status for _ in range(3)]
        assert answers == [200] * 3
        assert stop(page) == 0


def test_behind_a_proxy_cookies_are_for_https(page_of_all: Page, tmp_path: Path) -> None:
    with (
        web_page(tmp_path, page_of_all.encoder, page_of_all.retriever, "--behind-proxy") as page,
        contextlib.closing(Caller(page)) as caller,
    ):
        answer = caller.get("/")
        assert "Secure" in answer.cookies["marquee_session"].split("; ")
        assert answer.headers["strict-transport-security"] == "max-age=15768000"
        # Everybody who comes through the proxy comes from this machine: without a token nobody is the operator.
        assert caller.get("/operator").status == 403


def test_a_key_file_keeps_people_over_a_restart(page_of_all: Page, tmp_path: Path) -> None:
    key, addresses = tmp_path / "deep" / "key", (page_of_all.encoder, page_of_all.retriever)
    with web_page(tmp_path, *addresses, "--key", str(key)) as page, contextlib.closing(Caller(page)) as caller:
        caller.get("/")
        cookies = dict(caller.cookies)
    assert key.stat().st_mode & 0o777 == 0o600
    with web_page(tmp_path, *addresses, "--key", str(key)) as page, contextlib.closing(Caller(page)) as caller:
        caller.cookies.update(cookies)
        assert "marquee_session" not in caller.get("/").cookies


def test_sigterm_ends_the_page_and_its_port_file(page_of_all: Page, tmp_path: Path) -> None:
    with web_page(tmp_path, page_of_all.encoder, page_of_all.retriever) as page:
        assert stop(page) == 0
        assert list(tmp_path.glob("*.port*")) == []


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clients.web", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        (["--listen", "8080"], "give for example 127.0.0.1:8080"),
        (["--listen", "localhost:99999"], "give for example 127.0.0.1:8080"),
        (["--encoder", "nowhere"], "give host:port"),
        (["--rate", "0"], "no number above 0"),
        (["--metrics", "9100"], "give for example http://127.0.0.1:9100/metrics"),
        (["--operator-token", "short"], "give 16 characters or more"),
        (["--port", "9000"], "unrecognized arguments: --port 9000"),
    ],
)
def test_wrong_settings_are_told_with_the_cure(arguments: list[str], cure: str) -> None:
    ended = run(*arguments)
    assert ended.returncode == 2
    assert cure in ended.stderr


def test_the_flags_are_these() -> None:
    flags = set(re.findall(r"^  (--[\w-]+)", run("--help").stdout, re.MULTILINE))
    services = {"--encoder", "--retriever", "--deadline", "--tls", "--tls-ca", "--tls-cert", "--tls-key", "--tls-name"}
    page = {"--listen", "--port-file", "--key", "--behind-proxy", "--rate"}
    assert flags == services | page | {"--metrics", "--operator-token"}


def test_a_key_that_is_too_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"short")
    ended = run("--key", str(tmp_path / "key"))
    assert (ended.returncode, "holds 5 bytes" in ended.stderr) == (2, True)


def test_an_address_that_is_taken_is_said(page_of_all: Page) -> None:
    ended = run("--listen", f"127.0.0.1:{page_of_all.port}")
    assert ended.returncode == 4
    assert "address already in use" in ended.stderr


def operator_page(caller: Caller, **headers: str) -> Answer:
    return caller.get("/operator", {name.replace("_", "-"): value for name, value in headers.items()})


def test_the_operator_s_page_is_for_this_machine_alone(page_of_all: Page, caller: Caller) -> None:
    shown = operator_page(caller)
    assert shown.status == 200
    assert page_of_all.encoder in shown.text
    assert "ndcg@10" in shown.text
    # As a name that an attacker made to lead here, and as a proxy would pass it on.
    for headers in ({"Host": "evil.example"}, {"X_Forwarded_For": "10.0.0.9"}, {"Forwarded": "for=10.0.0.9"}):
        assert operator_page(caller, **headers).status == 403
        assert caller.get("/parts/operator", {k.replace("_", "-"): v for k, v in headers.items()}).status == 403


def test_with_a_token_the_operator_s_page_asks_for_it(page_of_all: Page, tmp_path: Path) -> None:
    token = "correct horse battery"
    with (
        web_page(tmp_path, page_of_all.encoder, page_of_all.retriever, "--operator-token", token) as page,
        contextlib.closing(Caller(page)) as caller,
    ):
        asked = operator_page(caller)
        assert asked.status == 401
        assert caller.post("/operator", {"token": asked.token, "operator_token": "wrong"}).status == 401
        assert caller.post("/operator", {"token": "wrong", "operator_token": token}).status == 401
        assert operator_page(caller, Authorization="Bearer wrong").status == 401
        assert operator_page(caller, Authorization=f"Bearer {token}").status == 200
        entered = caller.post("/operator", {"token": asked.token, "operator_token": token})
        assert "SameSite=strict" in entered.cookies["marquee_operator"]
        assert operator_page(caller).status == 200


def test_the_operator_s_page_says_which_replica_is_away(page_of_all: Page, tmp_path: Path) -> None:
    encoders = f"{page_of_all.encoder},127.0.0.1:1"
    with web_page(tmp_path, encoders, page_of_all.retriever, "--metrics", "http://127.0.0.1:1/metrics") as page:
        with contextlib.closing(Caller(page)) as caller:
            text = operator_page(caller).text
        assert text.count('class="replica"') == 2
        assert text.count('class="replica away"') == 1
        assert "no user_encoder answers at 127.0.0.1:1" in text
        assert "http://127.0.0.1:1/metrics does not answer" in text
