"use strict";
// Each action is an element with data-do; data-key is the key that clicks it. So the help lists what there is.
// What somebody does goes to the API itself; pages are rendered by the server and their parts put in place.

const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
const meta = (name) => $(`meta[name="${name}"]`)?.content ?? "";
const LIVE_MS = 700, POLL_MS = 15000, TOAST_MS = 12000;

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
  const answer = method === "POST" ? await reached(path, request).catch(() => reached(path, request, LOST)) : await reached(path, request);
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  const problem = await answer.json().catch(() => ({}));
  throw new Error(problem.detail ?? problem.title ?? `the server has answered ${answer.status}`);
}

const change = (id, what, version, body) =>
  send("POST", api(`/v1/cases/${id}/${what}`), {headers: {"If-Match": `"${version}"`}, body});

const AWAY = "The server cannot be reached.";
const LOST = `${AWAY} Look whether it was done before you do it again.`;
const key = () => [...crypto.getRandomValues(new Uint8Array(16))].map((each) => each.toString(16).padStart(2, "0")).join("");

async function reached(path, request, otherwise = AWAY) {
  try {
    return await fetch(path, request);
  } catch {
    throw new Error(otherwise);
  }
}

async function rendered(href) {
  const answer = await reached(href);
  if (answer.status === 401) location.reload();  // which says that the session has ended
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

// --- words on the screen ---

let toastEnds;

function say(text, undo) {
  const toast = $("#toast");
  toast.replaceChildren(document.createTextNode(text));
  if (undo) {
    const button = document.createElement("button");
    Object.assign(button.dataset, {do: "undo", key: "z", help: undo.what === "reopen" ? "Reopen it" : "Undo", undo: JSON.stringify(undo)});
    button.append(undo.what === "reopen" ? "Reopen " : "Undo ", Object.assign(document.createElement("kbd"), {textContent: "z"}));
    toast.append(button);
  }
  clearTimeout(toastEnds);
  toastEnds = setTimeout(() => toast.replaceChildren(), TOAST_MS);
}

// Never settles: nothing more is done on a page that is being left.
function leave(href, text, undo) {
  if (text) sessionStorage.setItem("said", JSON.stringify([text, undo]));
  location.assign(href);
  return new Promise(() => {});
}

function ask(title, value = "") {
  const dialog = $("#ask"), text = $("#ask-text");
  $("#ask-title").textContent = title;
  text.value = value;
  dialog.returnValue = "";
  dialog.showModal();
  text.select();
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
  const mine = ++askedRow, found = $("#detail", await rendered(row.dataset.page));
  if (mine === askedRow && found) $("#preview").replaceChildren(found);
}

// After one's own action the next row is chosen; of what others do meanwhile, what is read stays.
async function refresh(own = false) {
  if (!own && ($("dialog[open]") || typing(document.activeElement))) return;
  if (!$("#queue, #detail")) return;
  const mine = ++askedList, at = askedRow, page = await rendered(location.href);
  if (mine !== askedList) return;
  if ($("#queue")) await refreshQueue(page, own, at);
  else refreshDetail($("#detail"), page);
}

function refreshDetail(shown, page) {
  const found = $("#detail", page);
  if (shown && found && idOf(found) === idOf(shown)) shown.replaceWith(found);
}

async function refreshQueue(page, own, at) {
  if (!$("#queue", page)) return;
  const kept = new Set(marked().map((row) => row.dataset.id));
  const chosen = chosenRow()?.dataset.id, inside = $("#queue").contains(document.activeElement);
  $("#queue").replaceChildren(...$("#queue", page).children);
  $(".facets").replaceChildren(...$(".facets", page).children);
  $(".list h1").textContent = $(".list h1", page).textContent;
  document.title = page.title;
  $("#bulk")?.replaceWith($("#bulk", page) ?? "");
  $("#rest").replaceWith($("#rest", page));
  select((row) => whole || kept.has(row.dataset.id), whole);
  document.dispatchEvent(new Event("refreshed"));
  const same = rows().find((row) => row.dataset.id === chosen);
  if (chosen) mark(same);
  if (inside) $("#queue").focus();
  if (at !== askedRow) return;  // another row was chosen meanwhile
  if (!own || same) refreshDetail($("#preview #detail"), page);
  else if (rows().length) await choose(rows()[Math.min(Math.max(lastAt, 0), rows().length - 1)]);
  else $("#preview").replaceChildren();
}

// What nobody has asked for fails without a word: the next time is soon.
const refreshed = () => refresh().catch(() => {});

// --- cases ---

const DONE = {
  claim: "claimed by you", release: "given back", assign: "assigned", comment: "commented on", escalate: "escalated",
  reopen: "open again",
};

function outcome(act, reason, state) {
  if (act !== "close") return DONE[act];
  return state?.status === "closing" ? `closing as ${reason}: another person closes it` : `closed as ${reason}`;
}

function wayBack(act, reason, state) {
  if (act === "comment") return undefined;
  const lasting = act === "close" && reason !== "other" && state.status === "closed";
  return {what: lasting ? "reopen" : "undo", id: state.case_id, version: state.version};
}

async function body(button) {
  const {act, reason} = button.dataset;
  const text = button.dataset.ask ? await ask(button.dataset.ask, act === "assign" ? meta("who") : "") : "";
  if (text === null || (act === "comment" && !text)) return null;
  if (act === "close") return {reason, text};
  if (act === "assign") return {to: text || null};
  return act === "claim" || act === "release" ? {} : {text};
}

async function actOnCase(button) {
  const {act, reason} = button.dataset, {case: id, version} = $("#detail").dataset;
  const given = await body(button);
  if (given === null) return;
  const state = await change(id, act, version, given);
  const text = `Case ${id.slice(0, 8)} ${outcome(act, reason, state)}.`, undo = wayBack(act, reason, state);
  if (act === "close" && !$("#queue")) return next(text, undo);
  say(text, undo);
  await refresh(true);
}

const mass = (order) => send("POST", api("/v1/cases/mass"), {body: order});

async function actOnMany(button) {
  const {act, reason} = button.dataset, ids = marked().map((row) => row.dataset.id);
  const given = await body(button);
  if (given === null) return;
  const order = {...given, do: act, where: whole ? JSON.parse($("#bulk").dataset.where) : {cases: ids}};
  const {changed} = await mass({...order, dry_run: true}), labels = act === "close" && reason !== "other";
  if (labels) {  // which nobody can undo
    order.text = await ask(`Close ${changed} cases as ${reason}, which labels their transactions. Why?`);
    if (order.text === null) return;
  }
  const done = await mass({...order, expect: changed});
  select(() => false);
  const why = Object.entries(done.refused).map(([each, count]) => `${count} not: ${each}`).join("; ");
  const first = why ? undefined : await now(ids[0]);
  // What was done to many at once is taken back on any of them, for all.
  const undo = first && !labels ? {what: "undo", id: ids[0], version: first.version} : undefined;
  say(`${done.changed} cases ${outcome(act, reason, first)}.${why ? ` ${why}.` : ""}`, undo);
  await refresh(true);
}

async function mergeMany() {
  const into = $("#preview #detail")?.dataset.case, ids = marked().map((row) => row.dataset.id).filter((id) => id !== into);
  if (!into || !ids.length) return say("Open one case beside those that are to become part of it.");
  for (const id of ids) await change(id, "merge", (await now(id)).version, {into});
  select(() => false);
  say(`${ids.length} ${ids.length === 1 ? "case" : "cases"} merged into case ${into.slice(0, 8)}.`);
  await refresh(true);
}

async function merge() {
  const {case: id, version} = $("#detail").dataset, text = await ask("It becomes part of which case? Its id or address");
  if (!text) return;
  const into = text.match(/[0-9a-f]{16}/)?.[0];
  if (!into) return say("The id of a case has 16 characters, 0 to 9 and a to f.");
  const state = await change(id, "merge", version, {into});
  say(`Case ${id.slice(0, 8)} is part of case ${into.slice(0, 8)}.`, wayBack("merge", undefined, state));
  await refresh(true);
}

async function attach() {
  const {case: id} = $("#detail").dataset, picker = Object.assign(document.createElement("input"), {type: "file"});
  picker.addEventListener("change", async () => {
    const file = picker.files[0], path = api(`/v1/cases/${id}/attach`);
    try {
      await send("POST", `${path}${path.includes("?") ? "&" : "?"}name=${encodeURIComponent(file.name)}`, {body: file});
      say(`${file.name} is attached to case ${id.slice(0, 8)}.`);
      await refresh(true);
    } catch (fault) {
      say(fault.message);
    }
  });
  picker.click();
}

const now = async (id) => (await send("GET", api(`/v1/cases/${id}`))).case;

async function next(text, undo) {
  const taken = await send("POST", api("/v1/cases/claim-next"), {body: {}});
  if (taken) return leave(api(`/console/cases/${taken.case_id}`), `${text ?? ""} This one is yours now.`.trim(), undo);
  if (text) return leave(inbox(), `${text} No other case waits.`, undo);
  say("No case waits that nobody has.");
}

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
  case: actOnCase,
  cases: actOnMany,
  merge,
  "merge-many": mergeMany,
  attach,
  "claim-next": () => next(),
  undo: async (button) => {
    const {what, id, version} = JSON.parse(button.dataset.undo);
    $("#toast").replaceChildren();
    const state = await change(id, what, version, what === "reopen" ? {} : undefined);
    say(`Case ${id.slice(0, 8)}: ${what === "reopen" ? "open again" : "taken back"}, ${state.status}.`);
    await refresh(true);
  },
  label: async (button) => {
    const isFraud = button.dataset.fraud === "true", chosen = button.closest("#bulk") ? marked() : [$("#detail")];
    const labels = chosen.map((each) => ({transaction_id: each.dataset.transaction, is_fraud: isFraud}));
    await send("POST", api("/v1/labels"), {body: {labels}});
    select(() => false);
    const other = isFraud ? "g says genuine instead" : "f says fraud instead";
    say(`${labels.length === 1 ? "Labelled" : `${labels.length} labelled`} ${isFraud ? "fraud" : "genuine"}; ${other}.`);
    await refresh(true);
    setTimeout(refreshed, 2 * LIVE_MS);
  },
};

const typing = (element) => element?.matches?.("textarea, select, input:not([type=checkbox])");
const visible = (element) => element.getClientRects().length > 0;

// One thing that changes something at a time: a second press means what is seen after the first.
const ANY_TIME = new Set(["move", "mark", "mark-all", "unmark", "palette", "attach", "open", "back", "search", "help", "undo"]);
let busy = false;
addEventListener("pageshow", () => { busy = false; });

async function perform(element) {
  const what = element.dataset.do, alone = !ANY_TIME.has(what);
  if (alone && busy) return;
  busy ||= alone;
  try {
    await actions[what](element);
  } catch (fault) {
    say(fault.message);
    refreshed();
  } finally {
    if (alone) busy = false;
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
  if (event.key === "Enter" && event.target.id === "ask-text" && !event.shiftKey) {
    event.preventDefault();
    $("#ask button.primary").click();
    return;
  }
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
    feed.addEventListener("alert", () => {
      clearTimeout(soon);
      soon = setTimeout(refreshed, LIVE_MS);
    });
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
