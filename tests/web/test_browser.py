"""The page as a person sees it: a browser, both services, everything real."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect, sync_playwright

from tests.bundles import movie_record
from tests.rigs import retriever_process
from tests.web.rigs import ODD_TITLES, encoder_process, web_page
from tests.web.rigs import Page as Served

PATIENCE_MS = 20_000
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}
PATHS = ("/", "/search?q=the", "/films/25", "/yours", "/operator")
LANDMARKS: tuple[Literal["banner", "main", "contentinfo", "search", "navigation"], ...] = (
    "banner",
    "main",
    "contentinfo",
    "search",
    "navigation",
)
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Chromium's own sandbox needs privileges that containers do not give; the page under test is ours.
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def visit(browser: Browser, page_of_all: Served) -> Iterator[Open]:
    """Opens the shared page as somebody new; fails where the browser's console had anything to complain of."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def opened(path: str = "/", url: str = page_of_all.url, **settings: Any) -> Page:
        context = browser.new_context(base_url=url, **({"viewport": DESKTOP} | settings))
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.goto(path)
        return page

    expect.set_options(timeout=PATIENCE_MS)
    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def cards(page: Page) -> Locator:
    return page.locator("[data-list] > li")


def shown(page: Page) -> list[int]:
    return [int(text) for text in cards(page).evaluate_all("films => films.map(film => film.dataset.film)")]


def told(page: Page) -> Locator:
    return page.get_by_role("status")


def title_box(page: Page) -> Locator:
    return page.get_by_label("Find a film by its title")


def like(card: Locator) -> None:
    card.get_by_role("button", name=re.compile("^Like")).click()


def test_a_first_visit_shows_what_most_people_watch(visit: Open) -> None:
    page = visit()
    expect(page.get_by_role("heading", level=1)).to_have_text("What most people watch")
    expect(cards(page)).to_have_count(24)
    expect(page.locator(".notice")).to_have_text(
        "This is what most people watch. Like a few films, and it becomes your list."
    )
    assert page.title() == "Films for tonight · Marquee"


def test_a_like_changes_the_list_in_place(visit: Open) -> None:
    page = visit()
    page.evaluate("window.still = true")
    before, liked = shown(page), cards(page).nth(2)
    title = liked.get_by_role("heading").inner_text()
    like(liked)
    expect(page.get_by_role("heading", level=1)).to_have_text("Your list")
    after = shown(page)
    assert before[2] not in after
    new = len(set(after) - set(before))
    expect(told(page)).to_have_text(f"Noted: you like {title}. {new} films are new in your list.")
    assert page.locator("[data-list] > li.new").count() == new > 0
    expect(cards(page).locator(".why").first).to_have_text(f"Because you liked {title}")
    expect(page.get_by_role("heading", name=f"Because you liked {title}", level=2)).to_be_visible()
    assert page.evaluate("window.still")


def test_the_focus_stays_where_it_was(visit: Open) -> None:
    page = visit()
    page.locator("[data-list] .like").nth(2).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Your list")
    assert page.evaluate("document.activeElement.className") == "like"
    assert page.evaluate("[...document.querySelectorAll('[data-list] .like')].indexOf(document.activeElement)") == 2
    page.keyboard.press("Enter")
    expect(cards(page).locator(".why").first).to_be_visible()


def test_likes_that_overtake_each_other_all_count(visit: Open) -> None:
    page = visit()
    liked = shown(page)[:6]
    page.evaluate("document.querySelectorAll('[data-list] .like').forEach((one, n) => { if (n < 6) one.click(); })")
    expect(page.locator("[aria-disabled=true]")).to_have_count(0)
    for movie_id in liked:
        expect(page.locator(f'[data-film="{movie_id}"]')).to_have_count(0)
    page.goto("/yours")
    expect(page.locator(".lines li")).to_have_count(6)


def test_a_film_says_why_it_is_there(visit: Open) -> None:
    page = visit()
    like(cards(page).first)
    expect(page.get_by_role("heading", level=1)).to_have_text("Your list")
    card = cards(page).first
    title = card.get_by_role("heading").inner_text()
    card.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(title)
    expect(page.locator(".reasons li").first).to_contain_text("you like it")
    expect(page.get_by_role("heading", name=f"Similar to {title}")).to_be_visible()


def test_a_film_is_rated_with_keys_and_taken_back(visit: Open) -> None:
    page = visit(f"/films/{movie_record(8).movie_id}")
    page.evaluate("window.still = true")
    page.get_by_role("radio", name="0.5 stars").focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Rate").press("Enter")
    expect(page.locator("#said")).to_have_text("You gave it 3.5 stars")
    expect(page.get_by_role("radio", name="3.5 stars")).to_be_checked()
    page.get_by_role("button", name="Not for me").first.click()
    expect(page.locator("#said")).to_have_text("You do not like it")
    expect(page.locator(".opinion .dislike")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Take it back").first.click()
    expect(page.locator("#said")).to_have_text("You have not said anything about it.")
    assert page.evaluate("window.still")


def test_filters_hold_and_are_in_the_address(visit: Open) -> None:
    page = visit()
    page.get_by_role("checkbox", name="Comedy").check()
    expect(cards(page).first.locator(".line")).to_contain_text("Comedy")
    page.get_by_label("From").fill("1960")
    page.get_by_label("From").press("Tab")
    page.get_by_label("Language").select_option("French")
    page.wait_for_url(re.compile(r"\?genre=Comedy&from=1960&language=fr$"))
    right = [number for number in range(120) if passes(number)]
    expect(cards(page)).to_have_count(len(right))
    assert set(shown(page)) == {movie_record(number).movie_id for number in right}
    page.reload()
    expect(page.get_by_role("checkbox", name="Comedy")).to_be_checked()
    assert len(shown(page)) == len(right)
    page.get_by_role("link", name="Clear").click()
    expect(cards(page)).to_have_count(24)


def passes(number: int) -> bool:
    movie = movie_record(number)
    return "Comedy" in movie.genres and (movie.year or 0) >= 1960 and movie.language == "fr"


def test_a_year_that_is_none_is_answered_in_a_sentence(visit: Open) -> None:
    page = visit("/?from=1999&to=1960")
    expect(page.locator(".notice.refused")).to_contain_text("swap the years")
    page.get_by_label("to", exact=True).fill("")
    page.get_by_label("to", exact=True).press("Tab")
    expect(page.locator(".notice.refused")).to_have_count(0)


def test_a_film_is_found_while_its_title_is_typed(visit: Open) -> None:
    page = visit()
    box = title_box(page)
    box.press_sequentially("popco")
    options = page.locator("#found").get_by_role("option")
    expect(options).to_have_count(1)
    expect(options).to_contain_text("🎬 Popcorn 🍿")
    box.press("ArrowDown")
    expect(options.first).to_have_attribute("aria-selected", "true")
    expect(box).to_have_attribute("aria-activedescendant", "option-1")
    box.press("Escape")
    expect(options).to_have_count(0)
    box.press_sequentially("popcor")
    expect(options).to_have_count(1)
    expect(options).to_contain_text("🎬 Popcorn 🍿")
    box.press("ArrowDown")
    box.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("🎬 Popcorn 🍿")


def test_what_is_not_found_is_said(visit: Open) -> None:
    page = visit()
    title_box(page).press_sequentially("zzzzqqq")
    expect(page.locator("#found .notice")).to_have_text("No film is called “zzzzqqq”. Try fewer or other words.")


def test_who_is_forgotten_begins_anew(visit: Open) -> None:
    page = visit()
    like(cards(page).first)
    expect(page.get_by_role("heading", level=1)).to_have_text("Your list")
    page.get_by_role("link", name="Your films").click()
    expect(page.locator(".lines li")).to_have_count(1)
    page.get_by_role("checkbox", name="Yes, delete all of it").check()
    page.get_by_role("button", name="Forget me").click()
    expect(told(page)).to_have_text("Everything that you said is deleted.")
    expect(page.get_by_role("heading", level=1)).to_have_text("What most people watch")


def test_the_main_path_needs_no_script(visit: Open) -> None:
    page = visit(java_script_enabled=False)
    title = cards(page).first.get_by_role("heading").inner_text()
    like(cards(page).first)
    expect(told(page)).to_have_text(f"Noted: you like {title}.")
    expect(page.get_by_role("heading", level=1)).to_have_text("Your list")
    page.get_by_role("checkbox", name="Drama").check()
    page.get_by_role("button", name="Show").click()
    expect(cards(page).first.locator(".line")).to_contain_text("Drama")
    title_box(page).fill("popcorn")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Films called “popcorn”")
    page.get_by_role("link", name="🎬 Popcorn 🍿").click()
    page.locator("label", has_text="4.5 stars").click()
    page.get_by_role("button", name="Rate").click()
    expect(page.locator("#said")).to_have_text("You gave it 4.5 stars")
    page.get_by_role("link", name="Your films").click()
    page.get_by_role("button", name="Take it back 🎬 Popcorn 🍿").click()
    expect(page.locator(".lines li")).to_have_count(1)


def test_odd_titles_are_text(visit: Open) -> None:
    page = visit(viewport=PHONE)
    for number, title in ODD_TITLES.items():
        page.goto(f"/films/{movie_record(number).movie_id}")
        assert page.get_by_role("heading", level=1).inner_text() == title
        assert page.title() == f"{title} · Marquee"
        page.get_by_role("button", name="Like").first.click()
        expect(page.locator("#said")).to_have_text("You like it")
        assert told(page).inner_text() == f"Noted: you like {title}."
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.goto("/yours")
    expect(page.locator(".lines a")).to_have_text([*reversed(ODD_TITLES.values())])
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


ODD_TEXTS = ('"', "<img src=x onerror=alert(1)>", "فيلم", "🎬", "' OR 1=1 --", "\\", "%00")


def test_odd_texts_are_looked_for_like_others(visit: Open) -> None:
    page = visit()
    for typed in ODD_TEXTS:
        title_box(page).fill(typed)
        expect(page.locator("#found")).to_be_visible()
        page.get_by_role("button", name="Find").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text(typed)


def test_ten_thousand_clicks_leave_the_last_one(visit: Open) -> None:
    page = visit(f"/films/{movie_record(8).movie_id}")
    calls: list[str] = []
    page.on("request", lambda request: calls.append(request.url) if request.method == "POST" else None)
    page.evaluate(
        """() => {
            const [like, dislike] = document.querySelectorAll(".opinion .like, .opinion .dislike");
            for (let n = 0; n < 5000; n++) { like.click(); dislike.click(); }
        }"""
    )
    expect(page.locator("#said")).to_have_text("You do not like it")
    expect(page.locator("[aria-disabled=true]")).to_have_count(0)
    # One question was on its way, and of all that was clicked meanwhile the last was asked.
    assert len(calls) == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone_and_can_be_read(visit: Open, scheme: str) -> None:
    page = visit("/", viewport=PHONE, color_scheme=scheme)
    like(cards(page).first)
    expect(page.get_by_role("heading", level=1)).to_have_text("Your list")
    paper = {"light": "rgb(247, 242, 232)", "dark": "rgb(21, 17, 14)"}[scheme]
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
    for path in PATHS:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert small_targets(page) == []
        assert faint_texts(page) == []


def small_targets(page: Page) -> list[str]:
    """Names what a finger cannot hit: WCAG 2.2 asks for 24 pixels."""
    found: list[str] = page.locator("button:visible, select:visible, input[type=search]:visible").evaluate_all(
        "all => all.filter(one => one.getBoundingClientRect().height < 24 || one.getBoundingClientRect().width < 24)"
        ".map(one => one.outerHTML)"
    )
    return found


CONTRAST = """() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => [r, g, b]
        .map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
    const behind = (one) => {
        for (let up = one; up; up = up.parentElement) {
            const style = getComputedStyle(up);
            const first = style.backgroundImage.match(/oklch\\([^)]*\\)/);
            if (first) return rgba(first[0]);
            const colour = rgba(style.backgroundColor);
            if (colour[3] === 255) return colour;
        }
        return rgba("white");
    };
    const texts = [...document.querySelectorAll("body *")].filter((one) =>
        one.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && !one.closest(".idle")
        && [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
    return texts.map((one) => {
        const pair = [light(rgba(getComputedStyle(one).color)), light(behind(one))].sort((a, b) => a - b);
        return [one.outerHTML.slice(0, 90), (pair[1] + 0.05) / (pair[0] + 0.05)];
    }).filter(([, ratio]) => ratio < 4.5).map(([html, ratio]) => `${ratio.toFixed(2)} ${html}`);
}"""


def faint_texts(page: Page) -> list[str]:
    """Names texts whose contrast is below the 4.5 that WCAG asks for; of a gradient, its lightest colour counts."""
    found: list[str] = page.evaluate(CONTRAST)
    return found


@pytest.mark.parametrize("path", PATHS)
def test_pages_can_be_used_by_ear_and_by_keys(visit: Open, path: str) -> None:
    page = visit(path)
    for role in LANDMARKS:
        expect(page.get_by_role(role)).to_have_count(1)
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    assert page.evaluate("document.documentElement.lang") == "en"
    ids = page.locator("[id]").evaluate_all("all => all.map(one => one.id)")
    assert len(ids) == len(set(ids))
    fields = page.locator("input:not([type=hidden]), select, button")
    unnamed = "all => all.filter(one => !one.labels.length && !one.textContent.trim()).map(one => one.outerHTML)"
    assert fields.evaluate_all(unnamed) == []
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the films")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")
    # A film's link is as large as its poster, which shows the focus for it.
    outline = "one => getComputedStyle(one.closest('.poster, .chip label') ?? one).outlineStyle"
    focused = page.locator(":focus")
    if focused.get_attribute("type") != "checkbox":
        assert focused.evaluate(outline) == "solid"


def test_a_service_goes_away_and_comes_back(web_registry: Path, tmp_path: Path, visit: Open) -> None:
    with contextlib.ExitStack() as stack:
        retriever = stack.enter_context(retriever_process(tmp_path, web_registry, "--drain-s=0"))
        encoder = stack.enter_context(encoder_process(tmp_path, web_registry))
        addresses = f"127.0.0.1:{encoder.port}", f"127.0.0.1:{retriever.port}"
        page = visit("/", url=stack.enter_context(web_page(tmp_path, *addresses)).url)
        like(cards(page).first)
        expect(page.get_by_role("heading", level=1)).to_have_text("Your list")
        without_the_encoder(page, encoder.stop)
        stack.enter_context(encoder_process(tmp_path, web_registry, f"--listen=127.0.0.1:{encoder.port}"))
        expect(told(page)).to_have_text("Everything is back.")
        expect(page.get_by_role("heading", level=1)).to_have_text("Your list")
        expect(page.locator(".notice.away")).to_have_count(0)
        without_the_retriever(page, retriever.stop)


def without_the_encoder(page: Page, stop: Callable[[], Any]) -> None:
    stop()
    like(cards(page).first)
    expect(told(page)).to_contain_text("away right now")
    page.get_by_role("checkbox", name="Comedy").check()
    expect(page.locator(".notice.away")).to_contain_text("Personal recommendations are away right now.")
    expect(cards(page).first.locator(".line")).to_contain_text("Comedy")


def without_the_retriever(page: Page, stop: Callable[[], Any]) -> None:
    stop()
    page.get_by_role("checkbox", name="Comedy").uncheck()
    expect(page.locator(".notice.away")).to_contain_text("The film service is away right now.")
    expect(cards(page)).to_have_count(24)
    title_box(page).press_sequentially("lantern")
    expect(page.locator("#found .notice.away")).to_be_visible()


def test_a_list_that_does_not_come_is_asked_for_until_it_does(browser: Browser, page_of_all: Served) -> None:
    """A proxy before the page answers in its place while the page starts anew."""
    answers = iter(["in part", "broken"])

    def in_between(route: Route) -> None:
        answer = next(answers, "whole")
        if answer == "in part":
            route.fulfill(body=route.fetch().text().replace('data-whole="true"', 'data-whole="false"'))
        elif answer == "whole":
            route.continue_()
        else:
            route.fulfill(status=502, body="<html>Bad gateway</html>")

    with contextlib.closing(browser.new_page(base_url=page_of_all.url)) as page:
        page.goto("/")
        page.route("**/parts/home*", in_between)
        page.get_by_role("checkbox", name="Comedy").check()
        expect(page.locator('form[data-whole="false"]')).to_be_attached()
        expect(told(page)).to_have_text("Everything is back.", timeout=PATIENCE_MS)
        expect(page.locator('form[data-whole="true"]')).to_be_attached()
        assert next(answers, None) is None


def test_a_filter_holds_though_an_opinion_overtakes_it_and_is_refused(visit: Open) -> None:
    page = visit()
    held: list[Route] = []
    page.route("**/parts/home*", lambda route: route.continue_() if held else held.append(route))
    page.route("**/opinion", lambda route: route.fulfill(json={"told": "Not now.", "done": False, "html": ""}))
    with page.expect_request("**/parts/home*"):
        page.get_by_role("checkbox", name="Western").check()
    like(cards(page).first)
    expect(told(page)).to_have_text("Not now.")
    held[0].continue_()
    others = cards(page).filter(has_not=page.locator(".line", has_text="Western"))
    expect(others).to_have_count(0)
    expect(cards(page)).not_to_have_count(0)


def test_a_film_s_page_waits_for_its_service(web_registry: Path, tmp_path: Path, browser: Browser) -> None:
    film, nobody = movie_record(8), "127.0.0.1:1"
    with contextlib.ExitStack() as stack:
        retriever = stack.enter_context(retriever_process(tmp_path, web_registry, "--drain-s=0"))
        served = stack.enter_context(web_page(tmp_path, nobody, f"127.0.0.1:{retriever.port}"))
        retriever.stop()
        page = stack.enter_context(contextlib.closing(browser.new_page()))
        answer = page.goto(f"{served.url}/films/{film.movie_id}")
        assert answer is not None
        assert answer.status == 503
        expect(page.locator("main .notice.away")).to_contain_text("away right now")
        stack.enter_context(retriever_process(tmp_path, web_registry, f"--listen=127.0.0.1:{retriever.port}"))
        expect(page.get_by_role("heading", level=1)).to_have_text(film.title)


def test_the_operator_s_page_shows_what_is_loaded(visit: Open, page_of_all: Served) -> None:
    page = visit("/operator")
    expect(page.locator(".replica")).to_have_count(2)
    expect(page.locator(".role.active")).to_have_count(2)
    expect(page.locator(".replica h3").first).to_contain_text(page_of_all.encoder)
    expect(page.get_by_role("table").first).to_contain_text("ndcg@10")
