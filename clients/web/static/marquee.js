// Makes the page answer in place. Everything here also works without it, a page at a time.
"use strict";

const told = document.getElementById("told");
const home = document.getElementById("home");
const filters = document.getElementById("filters");
const operator = document.getElementById("operator");
const LOOK_AGAIN_MS = 3000;
const QUIET_MS = 5000;
document.documentElement.classList.add("scripted");

let quiet;
function say(text) {
  clearTimeout(quiet);
  told.textContent = text;
  told.classList.remove("idle");
  quiet = setTimeout(() => told.classList.add("idle"), QUIET_MS);
}
if (told.textContent) quiet = setTimeout(() => told.classList.add("idle"), QUIET_MS);

const AWAY = "The page cannot be reached right now. Try again in a moment.";
const TOO_MUCH = "That was too much at once. Wait a second, and go on.";

// What a person is told in a sentence; any other error is a mistake of this script, and goes to the console.
class Trouble extends Error {}

function tell(error) {
  if (!(error instanceof Trouble)) throw error;
  say(error.message);
}

async function ask(path, options = {}) {
  const sent = { ...options, headers: { "X-Requested-With": "marquee" }, credentials: "same-origin" };
  const answer = await fetch(path, sent).catch((error) => {
    throw error.name === "AbortError" ? error : new Trouble(AWAY);
  });
  if (answer.status === 429) throw new Trouble(TOO_MUCH);
  return answer;
}

// The first page: filters and clicks change it in place. An answer that a later question overtook is dropped.

let asked = 0;
// Lists that were asked for and have not come.
let awaited = 0;
function show(html) {
  const focused = place();
  home.innerHTML = html;
  refocus(focused);
  lookAgain();
}

// Where the focus was: which film of which list, and which of its buttons.
function place() {
  const film = document.activeElement?.closest?.("#home .film");
  if (!film) return null;
  const list = [...home.querySelectorAll(".grid, .reel")].indexOf(film.parentElement);
  const at = [...film.parentElement.children].indexOf(film);
  const part = [...film.querySelectorAll("a, button")].indexOf(document.activeElement);
  return { id: film.dataset.film, list, at, part };
}

function refocus(was) {
  if (!was) return;
  const lists = [...home.querySelectorAll(".grid, .reel")];
  const list = lists[was.list] ?? lists[0];
  const stayed = list?.querySelector(`[data-film="${CSS.escape(was.id)}"]`);
  const film = stayed ?? list?.children[Math.min(was.at, list.children.length - 1)];
  const parts = film?.querySelectorAll("a, button") ?? [];
  (parts[Math.max(0, was.part)] ?? parts[0] ?? document.getElementById("main")).focus({ preventScroll: !!stayed });
}

// What is away is looked for again, until it is back.
let waiting;
function lookAgain() {
  clearTimeout(waiting);
  if (operator) return;
  if (home ? whole() === "false" : document.querySelector("main .notice.away")) {
    waiting = setTimeout(home ? reload : renew, LOOK_AGAIN_MS);
  }
}

function whole() {
  return home.querySelector("form")?.dataset.whole;
}

// Says whether the list was shown; one that does not come is asked for again.
async function load() {
  const turn = ++asked;
  awaited++;
  clearTimeout(waiting);
  try {
    const answer = await ask("/parts/home" + location.search);
    if (!answer.ok) throw new Trouble(AWAY);
    const html = await answer.text();
    if (turn !== asked) return false;
    show(html);
    return true;
  } catch (error) {
    if (turn === asked) waiting = setTimeout(reload, LOOK_AGAIN_MS);
    throw error;
  } finally {
    awaited--;
  }
}

async function reload() {
  const was = whole();
  try {
    if (await load() && was === "false" && whole() === "true") say("Everything is back.");
  } catch (error) {
    if (!(error instanceof Trouble)) throw error;
  }
}

async function filter() {
  const pairs = [...new FormData(filters)].filter(([, value]) => value);
  const query = new URLSearchParams(pairs).toString();
  history.replaceState(null, "", query ? "/?" + query : "/");
  try {
    if (!await load()) return;
    const count = home.querySelectorAll("[data-list] > li").length;
    say(count === 1 ? "1 film." : `${count} films.`);
  } catch (error) {
    tell(error);
  }
}

if (filters) {
  filters.addEventListener("change", (event) => { if (event.target.checkValidity()) filter(); });
  filters.addEventListener("submit", (event) => { event.preventDefault(); filter(); });
}
lookAgain();

// Opinions: one question at a time for each film; of what is clicked meanwhile, the last is asked next.

const busy = new Map();
// A list was dropped, or will be, that may know what the one on the screen does not.
let stale = false;

// `formAction` of a button without the attribute is the page's address, not the form's.
function goal(button) {
  return button.hasAttribute("formaction") ? button.formAction : button.form?.action;
}

document.addEventListener("submit", (event) => {
  const button = event.submitter;
  if (!button || !goal(button)?.endsWith("/opinion")) return;
  event.preventDefault();
  const body = new URLSearchParams(new FormData(event.target, button));
  if (home?.contains(event.target)) {
    body.set("part", "home");
    body.set("back", location.pathname + location.search);
    body.set("shown", [...home.querySelectorAll("[data-list] > li")].map((film) => film.dataset.film).join(","));
  }
  state(goal(button), body);
});

async function state(path, body) {
  if (busy.has(path)) {
    busy.set(path, body);
    return;
  }
  busy.set(path, null);
  mark(path, true);
  const turn = ++asked;
  // Its own answer has no list where it is refused.
  if (awaited) stale = true;
  try {
    const answer = await ask(path, { method: "POST", body });
    if (!answer.headers.get("Content-Type")?.startsWith("application/json")) throw new Trouble(AWAY);
    await shown(await answer.json(), turn);
  } catch (error) {
    tell(error);
  } finally {
    settle(path);
  }
}

async function shown(answer, turn) {
  say(answer.told);
  if (!answer.done) return;
  if (!home) await renew();
  else if (turn === asked) show(answer.html);
  else stale = true;
}

function settle(path) {
  const next = busy.get(path);
  busy.delete(path);
  mark(path, false);
  if (next) state(path, next);
  if (stale && !busy.size) {
    stale = false;
    reload();
  }
}

function mark(path, on) {
  for (const button of document.querySelectorAll("button")) {
    if (goal(button) === path) button.setAttribute("aria-disabled", on);
  }
}

// Any other page is asked for again, and what it shows is put in place.
async function renew() {
  const answer = await ask(location.href).catch((error) => {
    if (!(error instanceof Trouble)) throw error;
  });
  if (!answer?.ok) return lookAgain();
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const value = document.activeElement?.value;
  const id = document.activeElement?.id;
  document.getElementById("main").replaceChildren(...page.getElementById("main").children);
  const again = id ? document.getElementById(id) : document.querySelector(`main button[value="${CSS.escape(value ?? "")}"]`);
  (again ?? document.getElementById("main")).focus({ preventScroll: true });
  lookAgain();
}

// Finding a film while its title is typed.

const box = document.getElementById("q");
const found = document.getElementById("found");
const TYPING_MS = 15;
let typing, question;

Object.entries({ role: "combobox", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": "options" })
  .forEach(([name, value]) => box.setAttribute(name, value));

function closeFound() {
  question?.abort();
  clearTimeout(typing);
  found.hidden = true;
  box.setAttribute("aria-expanded", "false");
  box.removeAttribute("aria-activedescendant");
}

async function find() {
  question?.abort();
  question = new AbortController();
  const { signal } = question;
  if (!box.value.trim()) return closeFound();
  try {
    const answer = await ask("/parts/search?q=" + encodeURIComponent(box.value.slice(0, 200)), { signal });
    const html = await answer.text();
    if (answer.ok) list(html);
  } catch (error) {
    if (error.name !== "AbortError") tell(error);
  }
}

// A film that was chosen stays so where the next letter leaves it in the list.
function list(html) {
  const chosen = found.querySelector('[aria-selected="true"] a')?.getAttribute("href");
  found.innerHTML = html;
  found.hidden = false;
  box.setAttribute("aria-expanded", "true");
  select(chosen ? found.querySelector(`a[href="${CSS.escape(chosen)}"]`)?.parentElement : null);
}

function select(option) {
  for (const one of found.querySelectorAll('[role="option"]')) one.setAttribute("aria-selected", one === option);
  if (!option) return box.removeAttribute("aria-activedescendant");
  box.setAttribute("aria-activedescendant", option.id);
  option.scrollIntoView({ block: "nearest" });
}

function step(by) {
  const options = [...found.querySelectorAll('[role="option"]')];
  if (found.hidden || !options.length) return;
  const at = options.findIndex((one) => one.getAttribute("aria-selected") === "true");
  const from = at < 0 && by < 0 ? 0 : at;
  select(options[(from + by + options.length) % options.length]);
}

box.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(find, TYPING_MS);
});
box.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    step(event.key === "ArrowDown" ? 1 : -1);
  } else if (event.key === "Escape") {
    closeFound();
  } else if (event.key === "Enter") {
    const link = found.hidden ? null : found.querySelector('[aria-selected="true"] a');
    if (link) {
      event.preventDefault();
      location.href = link.href;
    }
  }
});
document.addEventListener("click", (event) => { if (!event.target.closest(".find")) closeFound(); });
document.addEventListener("focusin", (event) => { if (!event.target.closest(".find")) closeFound(); });

// The operator's page looks again by itself.

if (operator) {
  setInterval(async () => {
    if (document.hidden) return;
    try {
      const answer = await ask("/parts/operator");
      if (answer.ok) operator.innerHTML = await answer.text();
    } catch (error) {
      tell(error);
    }
  }, 2000);
}
