"use strict";
// Commands by typing, and lists that somebody has saved in this browser. It adds to the actions of console.js.

// --- commands ---

const ADDRESSES = [
  [/^[0-9a-f]{16}$/, (text) => ["Open this case", api(`/console/cases/${text}`)]],
  [/^[0-9a-f]{32}$/, (text) => ["Open this alert", api(`/console/alerts/${text}`)]],
  [/^[^=\s]+=.+$/, (text) => ["Cases of this entity", with_(api("/console/cases"), "entity", text)]],
];
let offered = [], all = [], at = 0;

function with_(path, name, value) {
  const found = new URL(path, location.origin);
  found.searchParams.set(name, value);
  return found.pathname + found.search;
}

function wordsOf(element) {
  const words = element.dataset.help ?? element.getAttribute("aria-label") ?? element.firstChild.textContent;
  return words.trim().replace(/\s+/g, " ");
}

// Of several with one key the first is what the key does.
function commands() {
  const known = new Set();
  const press = (each) => (each.isConnected ? each.click() : say("The page has changed meanwhile: once more, please."));
  const words = (each) => (each.closest("#bulk") && each.dataset.do !== "mark-all" ? `${wordsOf(each)}: all selected` : wordsOf(each));
  const doing = $$("[data-do]").filter(visible).filter((each) => !["move", "palette", "help"].includes(each.dataset.do));
  const going = $$("nav a, #presets a").filter(visible).map((each) => [`Go to ${wordsOf(each)}`, "", () => location.assign(each.href)]);
  return [...doing.map((each) => [words(each), each.dataset.key ?? "", () => press(each)]), ...going]
    .filter(([name]) => !known.has(name) && known.add(name));
}

function offer() {
  const text = $("#palette-text").value.trim(), lower = text.toLowerCase(), words = lower.split(/\s+/);
  const addresses = ADDRESSES.filter(([shape]) => shape.test(lower)).map(([, of]) => of(lower.includes("=") ? text : lower));
  const begins = ([name]) => Number(name.toLowerCase().startsWith(lower));
  offered = [
    ...addresses.map(([name, href]) => [name, "", () => location.assign(href)]),
    ...all.filter(([name]) => words.every((word) => name.toLowerCase().includes(word))).sort((one, other) => begins(other) - begins(one)),
  ];
  at = 0;
  $("#palette-list").replaceChildren(...offered.map(([name, key], number) => {
    const item = Object.assign(document.createElement("li"), {id: `palette-${number}`, role: "option", textContent: name});
    if (key) item.append(" ", Object.assign(document.createElement("kbd"), {textContent: key}));
    return item;
  }));
  point();
}

function point() {
  for (const [number, item] of [...$("#palette-list").children].entries()) item.setAttribute("aria-selected", String(number === at));
  if (offered.length) $("#palette-text").setAttribute("aria-activedescendant", `palette-${at}`);
  else $("#palette-text").removeAttribute("aria-activedescendant");
  $(`#palette-${at}`)?.scrollIntoView({block: "nearest"});
}

function carryOut(number) {
  const chosen = offered[number];
  if (!chosen) return;
  $("#palette").close();
  chosen[2]();
}

actions.palette = () => {
  all = commands();
  $("#palette-text").value = "";
  offer();
  $("#palette").showModal();
};

$("#palette-text")?.addEventListener("input", offer);
$("#palette-text")?.addEventListener("keydown", (event) => {
  const by = {ArrowDown: 1, ArrowUp: -1}[event.key];
  if (by && offered.length) {
    at = (at + by + offered.length) % offered.length;
    point();
  } else if (event.key === "Enter") carryOut(at);
  else return;
  event.preventDefault();
});
$("#palette-list")?.addEventListener("click", (event) => {
  const item = event.target.closest("li");
  if (item) carryOut(Number(item.id.slice("palette-".length)));
});
document.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "k" || $("dialog[open]") || !meta("who")) return;
  event.preventDefault();
  $("[data-do=palette]").click();
});

// --- saved lists ---

const PRESETS = `lists ${meta("who")} ${meta("agent")}`, MOST_PRESETS = 20;

function presets() {
  try {
    return JSON.parse(localStorage.getItem(PRESETS) ?? "[]").filter(({href}) => href.startsWith("/console/"));
  } catch {
    return [];
  }
}

function keep(found) {
  localStorage.setItem(PRESETS, JSON.stringify(found));
  showPresets();
}

function showPresets() {
  const found = presets(), section = $("#presets");
  if (!section) return;
  section.hidden = !found.length;
  $("ul", section).replaceChildren(...found.map(({name, href}) => {
    const item = document.createElement("li"), link = document.createElement("a"), away = document.createElement("button");
    Object.assign(link, {textContent: name, href});
    Object.assign(away, {type: "button", className: "quiet", textContent: "✕", ariaLabel: `Forget ${name}`});
    Object.assign(away.dataset, {do: "forget-list", name});
    item.append(link, away);
    return item;
  }));
}

Object.assign(actions, {
  "save-list": async () => {
    if (presets().length >= MOST_PRESETS) return say(`This browser keeps ${MOST_PRESETS} lists: forget one first.`);
    const name = await ask("Name of this list, kept in this browser", {needed: true});
    if (name === null) return;
    const found = new URL(location.href);
    for (const each of ["selected", "after"]) found.searchParams.delete(each);
    keep([...presets().filter((each) => each.name !== name), {name, href: found.pathname + found.search}]);
  },
  "forget-list": (button) => keep(presets().filter((each) => each.name !== button.dataset.name)),
});

showPresets();
document.addEventListener("refreshed", showPresets);
