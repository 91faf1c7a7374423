"use strict";
// Each action is an element with data-do; data-key is the key that clicks it. So the help lists what there is.
// What somebody does goes to the API itself; pages are rendered by the server and their parts put in place.

const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
const meta = (name) => $(`meta[name="${name}"]`)?.content ?? "";
const LIVE_MS = 700, POLL_MS = 15000, TOAST_MS = 12000, MOST_MS = 60000, SLOW_MS = 300;

// --- the server ---

function api(path) {
  const agent = meta("agent");
  return agent ? `${path}?agent=${encodeURIComponent(agent)}` : path;
}

// Under its key an order whose answer was lost is sent once more and done once.
async function send(method, path, {headers = {}, body} = {}) {
  const given = {"X-CSRF-Token": meta("csrf"), ...headers};
  const isFile = body instanceof Blob;
  if (body !== undefined) given["Content-Type"] = isFile ? "application/octet-stream" : "application/json";
  if (method === "POST") given["Idempotency-Key"] = key();
  const request = {method, headers: given, body: body === undefined || isFile ? body : JSON.stringify(body)};
  const answer = await (method === "POST" ? reachedTwice : reached)(path, request);
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  const problem = await answer.json().catch(() => ({}));
  const fault = new Error(problem.detail ?? problem.title ?? `the server has answered ${answer.status}`);
  throw Object.assign(fault, {problems: problem.problems});
}

const change = (id, what, version, body) =>
  send("POST", api(`/v1/cases/${id}/${what}`), {headers: {"If-Match": `"${version}"`}, body});

const AWAY = "The server cannot be reached.";
const LOST = `${AWAY} Look whether it was done before you do it again.`;
const key = () => [...crypto.getRandomValues(new Uint8Array(16))].map((each) => each.toString(16).padStart(2, "0")).join("");

async function reached(path, request, otherwise = AWAY) {
  try {
    return await fetch(path, {signal: AbortSignal.timeout(MOST_MS), ...request});
  } catch (cause) {
    throw new Error(otherwise, {cause});
  }
}

async function reachedTwice(path, request) {
  try {
    return await reached(path, request, LOST);
  } catch (fault) {
    if (fault.cause.name === "TimeoutError") throw fault;
    return reached(path, request, LOST);
  }
}

async function rendered(href) {
  const answer = await reached(href);
  if (answer.status === 401) location.reload();  // which says that the session has ended
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (answer.ok || $("#queue", page)) return page;
  throw new Error($("[role=alert]", page)?.textContent ?? `The server has answered ${answer.status}.`);
}

// --- words on the screen ---

const counted = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

let toastEnds;

// What takes it back stands beside what was done, until something else is said.
function say(text, undo) {
  const toast = $("#toast");
  toast.replaceChildren(document.createTextNode(text));
  if (undo) toast.append(wayBackButton(undo));
  endSoon();
}

// Says more without taking away what was said.
function also(text) {
  $("#toast").prepend(document.createTextNode(`${text} `));
  endSoon();
}

function endSoon() {
  clearTimeout(toastEnds);
  toastEnds = setTimeout(() => {
    if ($("#toast").matches(":hover, :focus-within")) endSoon();
    else $("#toast").replaceChildren();
  }, TOAST_MS);
}

function wayBackButton(undo) {
  const words = undo.words ?? "Undo", button = document.createElement("button");
  Object.assign(button.dataset, {do: "undo", key: "z", help: words, undo: JSON.stringify(undo)});
  button.append(`${words} `, Object.assign(document.createElement("kbd"), {textContent: "z"}));
  return button;
}

// Never settles: nothing more is done on a page that is being left.
function leave(href, text, undo) {
  if (text) sessionStorage.setItem("said", JSON.stringify([text, undo]));
  const plain = (address) => new URL(address, location.href).href.split("#")[0];
  if (plain(href) === plain(location.href)) location.reload();  // where it has a hash, assigning it loads nothing
  else location.assign(href);
  return new Promise(() => {});
}

// Resolves to the text, null where somebody has thought better of it. Without words it is a plain question.
function ask(title, {value = "", needed = false, wordless = false} = {}) {
  const dialog = $("#ask"), text = $("#ask-text");
  $("#ask-title").textContent = title;
  Object.assign(text, {value, hidden: wordless});
  const check = () => text.setCustomValidity(needed && !text.value.trim() ? "Say something here." : "");
  text.oninput = check;
  check();
  dialog.returnValue = "";
  dialog.showModal();
  if (!wordless) text.select();
  return new Promise((settle) => {
    dialog.addEventListener("close", () => settle(dialog.returnValue ? text.value.trim() : null), {once: true});
  });
}

// --- the queue ---

const rows = () => $$("#queue > .row");
const chosenRow = () => $("#queue > .row[data-chosen]");
const marked = () => rows().filter((row) => $("input", row)?.checked);
// What is selected: rows of this page, or all that the list has (`whole`).
let whole = false;

function select(which, all = false) {
  for (const box of $$("#queue > .row > input")) box.checked = which(box.parentElement);
  whole = all;
  tellSelected();
}

function tellSelected() {
  const bar = $("#bulk");
  if (!bar) return;
  const count = whole ? Number(bar.dataset.total) : marked().length;
  bar.hidden = !count;
  $("#bulk-count").textContent = `${count} selected`;
}

const idOf = (detail) => detail?.dataset.case ?? detail?.dataset.alert;
let askedRow = 0, askedList = 0, lastAt = -1;

function mark(row) {
  chosenRow()?.removeAttribute("data-chosen");
  $("#queue [aria-current]")?.removeAttribute("aria-current");
  if (!row) return;
  row.dataset.chosen = "";
  $("a", row).setAttribute("aria-current", "true");
  lastAt = rows().indexOf(row);
}

// The preview is emptied at once: nothing can be decided that is not shown.
async function choose(row) {
  if (!row) return;
  mark(row);
  row.scrollIntoView({block: "nearest"});
  history.replaceState(null, "", $("a", row).href);
  $("#preview").replaceChildren();
  $("#preview").scrollTop = 0;
  const mine = ++askedRow, found = $("#detail", await rendered(row.dataset.page));
  if (mine === askedRow && found) $("#preview").replaceChildren(found);
}

// After one's own action the next row is chosen; of what others do meanwhile, what is read stays.
async function refresh(own = false) {
  if (!own && ($("dialog[open]") || typing(document.activeElement))) return;
  if (!$("#queue, #detail")) return;
  const mine = ++askedList, at = askedRow, page = await rendered(location.href);
  if (mine !== askedList || (!own && $("dialog[open]"))) return;
  if ($("#queue")) await refreshQueue(page, own, at);
  else refreshDetail($("#detail"), page);
}

const FOCUSABLE = "a, button, input, select, textarea, summary, [tabindex]";

// Where nothing differs nothing is replaced; else the focus stays where it was, and what was unfolded.
function renew(shown, found) {
  if (!shown || !found || shown.isEqualNode(found)) return;
  const at = $$(FOCUSABLE, shown).indexOf(document.activeElement), unfolded = $$("details", shown).map((each) => each.open);
  shown.replaceWith(found);
  for (const [number, each] of $$("details", found).entries()) each.open ||= unfolded[number] ?? false;
  if (at >= 0) $$(FOCUSABLE, found)[at]?.focus();
}

function refreshDetail(shown, page) {
  const found = $("#detail", page);
  if (found && idOf(found) === idOf(shown)) renew(shown, found);
}

async function refreshQueue(page, own, at) {
  if (!$("#queue", page)) return;
  const kept = new Set(marked().map((row) => row.dataset.id));
  const chosen = chosenRow()?.dataset.id, focused = document.activeElement?.closest?.("#queue > .row");
  const inside = $("#queue").contains(document.activeElement), box = document.activeElement?.matches("input");
  $("#queue").replaceChildren(...$("#queue", page).children);
  for (const name of [".facets", "#bulk", "#rest"]) renew($(name), $(name, page));
  $(".list h1").textContent = $(".list h1", page).textContent;
  document.title = page.title;
  select((row) => whole || kept.has(row.dataset.id), whole && Number($("#bulk").dataset.total) > 0);
  document.dispatchEvent(new Event("refreshed"));
  const same = rows().find((row) => row.dataset.id === chosen);
  if (chosen) mark(same);
  if (inside) ($(box ? "input" : "a", rows().find((row) => row.dataset.id === focused?.dataset.id) ?? $("#queue")) ?? $("#queue")).focus();
  if (at !== askedRow) return;  // another row was chosen meanwhile
  const reads = visible($("#preview"));
  if (!own || same) refreshDetail($("#preview #detail"), page);
  else if (rows().length && reads) await choose(rows()[Math.min(Math.max(lastAt, 0), rows().length - 1)]);
  else $("#preview").replaceChildren();
}

// What is done stays said, though the page cannot be renewed.
const renewed = () => refresh(true).catch((fault) => also(`The page could not be renewed: ${fault.message}`));

// What nobody has asked for may fail, the next time is soon; a page that stays as it was says so.
let failures = 0;
async function refreshed() {
  try {
    await refresh();
    tellReached(true);
  } catch {
    tellReached(false);
  }
}

function tellReached(isReached) {
  failures = isReached ? 0 : failures + 1;
  const away = $("#away");
  if (failures === MOST_FAILURES) away.textContent = `not reached since ${new Date().toISOString().slice(11, 16)} UTC`;
  away.hidden = failures < MOST_FAILURES;
}
const MOST_FAILURES = 2;

const inbox = () => sessionStorage.getItem("inbox") ?? api("/console/cases");

// --- what elements do ---

const actions = {
  "sign-out": async () => {
    await send("POST", "/console/sign-out");
    sessionStorage.clear();
    location.assign("/console/sign-in");
  },
  help: () => {
    const list = $("#keys dl"), listed = new Set();
    list.replaceChildren();
    for (const each of $$("[data-key]").filter(visible)) {
      if (listed.has(each.dataset.key)) continue;
      listed.add(each.dataset.key);
      const key = document.createElement("dt"), words = document.createElement("dd");
      key.append(Object.assign(document.createElement("kbd"), {textContent: each.dataset.key}));
      words.textContent = each.dataset.help ?? each.firstChild.textContent.trim();
      list.append(key, words);
    }
    $("#keys").showModal();
  },
  move: (button) => {
    const all = rows(), at = all.indexOf(chosenRow()), by = Number(button.dataset.by);
    const to = at >= 0 ? at + by : Math.min(Math.max(lastAt, 0), all.length - 1);  // its row has gone
    if (to >= 0 && to < all.length) return choose(all[to]);
  },
  mark: () => {
    const chosen = chosenRow();
    if (chosen) select((row) => $("input", row).checked !== (row === chosen));
  },
  "mark-all": () => select(() => true, true),
  unmark: () => select(() => false),
  open: () => { if (chosenRow()) location.assign(chosenRow().dataset.page); },
  back: () => location.assign(inbox()),
  search: () => $("#search").select(),
};

const typing = (element) => element?.matches?.("textarea, select, input:not([type=checkbox])");
const visible = (element) => element.getClientRects().length > 0;

// One thing that changes something at a time: a second press means what is seen after the first.
const ANY_TIME = new Set(["move", "mark", "mark-all", "unmark", "attach", "open", "back", "help", "undo"]);
let busy = false;

function work(begins) {
  busy = begins;
  document.body.toggleAttribute("data-busy", false);
  if (begins) setTimeout(() => document.body.toggleAttribute("data-busy", busy), SLOW_MS);
}

// A browser brings a page back with boxes checked by their place, whatever rows are there now.
addEventListener("pageshow", (event) => {
  work(false);
  if ($("#queue")) select(() => false);
  if (event.persisted) refreshed();
});

async function perform(element) {
  const what = element.dataset.do, alone = !ANY_TIME.has(what);
  if (alone && busy) return document.body.toggleAttribute("data-busy", true);
  if (alone) work(true);
  try {
    await actions[what](element);
  } catch (fault) {
    say(fault.message);
    refreshed();
  } finally {
    if (alone) work(false);
  }
}

document.addEventListener("click", (event) => {
  const element = event.target.closest("[data-do]");
  if (element && element.dataset.do in actions) {
    event.preventDefault();
    perform(element);
    return;
  }
  const link = event.target.closest("#queue > .row a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const row = link.closest(".row");
  if (visible($("#preview"))) choose(row).catch((fault) => say(fault.message));
  else location.assign(row.dataset.page);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Enter" && event.target.id === "ask-text" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    if (!event.repeat) $("#ask button.primary").click();
    return;
  }
  if (event.repeat && event.key === "Enter") event.preventDefault();  // a held key presses a button once
  if (event.key === "Escape" && typing(event.target) && !$("dialog[open]")) event.target.blur();
  if (typing(event.target) || $("dialog[open]")) return;
  const element = $$("[data-key]").find((each) => each.dataset.key === event.key && visible(each));
  if (!element) return;
  event.preventDefault();
  if (!event.repeat || element.dataset.do === "move") element.click();
});

// --- what others do meanwhile ---

function follow() {
  let soon, feed;
  const begin = () => {
    feed?.close();
    feed = new EventSource(api("/v1/alerts/live"));
    // What came after the page was made and before the feed began is seen as well.
    for (const news of ["open", "alert"]) {
      feed.addEventListener(news, () => {
        clearTimeout(soon);
        soon = setTimeout(refreshed, LIVE_MS);
      });
    }
    feed.addEventListener("error", () => {  // by itself it begins again but where the server has refused it
      if (feed.readyState === EventSource.CLOSED && !document.hidden) setTimeout(begin, POLL_MS);
    });
  };
  // A hidden tab holds no connection: browsers have six a server.
  document.addEventListener("visibilitychange", () => {
    feed?.close();
    if (!document.hidden) {
      begin();
      refreshed();
    }
  });
  begin();
  setInterval(() => { if (!document.hidden && $("[data-poll]")) refreshed(); }, POLL_MS);
}

const said = sessionStorage.getItem("said");
if (said) {
  sessionStorage.removeItem("said");
  say(...JSON.parse(said));
}
if (meta("live")) follow();
$("#queue")?.addEventListener("change", () => {
  whole = false;
  tellSelected();
});
if ($("#queue:not([data-aside])")) addEventListener("pagehide", () => sessionStorage.setItem("inbox", location.href));
