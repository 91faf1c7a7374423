"use strict";
// What people do to cases, and labels of transactions. It adds to the actions of console.js.

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
  return {what: lasting ? "reopen" : "undo", words: lasting ? "Reopen" : "Undo", id: state.case_id, version: state.version};
}

async function body(button) {
  const {act, reason} = button.dataset;
  const given = {value: act === "assign" ? meta("who") : "", needed: act === "comment"};
  const text = button.dataset.ask ? await ask(button.dataset.ask, given) : "";
  if (text === null) return null;
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
  await renewed();
}

const MOST_LOOKED_AT = 10;
const mass = (order) => send("POST", api("/v1/cases/mass"), {body: order});

// The question comes before anything is counted: what is typed meanwhile may not become its answer.
async function actOnMany(button) {
  const {act, reason} = button.dataset, chosen = marked(), count = whole ? Number($("#bulk").dataset.total) : chosen.length;
  const where = whole ? JSON.parse($("#bulk").dataset.where) : {cases: chosen.map((row) => row.dataset.id)};
  const labels = act === "close" && reason !== "other", given = await body(button);
  if (given === null) return;
  if (labels) {  // which nobody can undo
    given.text = await ask(`Close ${counted(count, "case")} as ${reason}, which labels all their transactions. Why?`, {needed: true});
    if (given.text === null) return;
  }
  const order = {...given, do: act, where}, {meant, changed} = await mass({...order, dry_run: true});
  if (whole && meant !== count) {
    say(`By now this list has ${counted(meant, "case")}, not ${count}. Nothing was done: look again, then do it again.`);
    return renewed();
  }
  const most = Number($("#bulk").dataset.most);
  if (changed > most) return say(`${counted(most, "case")} at most are changed at once, and these are ${changed.toLocaleString("en")}: choose fewer.`);
  const done = await mass({...order, expect: changed}), one = await someChanged(chosen);
  select(() => false);
  const why = Object.entries(done.refused).map(([each, number]) => `; ${number} not: ${each}`).join("");
  // What was done to many at once is taken back on any of them, for all.
  const undo = one && !labels ? {what: "undo", id: one.case_id, version: one.version} : undefined;
  say(`${counted(done.changed, "case")} ${outcome(act, reason, one)}${why}.`, undo);
  await renewed();
}

async function someChanged(chosen) {
  for (const row of chosen.slice(0, MOST_LOOKED_AT)) {
    const state = await now(row.dataset.id).catch(() => undefined);
    if (state && state.version > Number(row.dataset.version)) return state;
  }
  return undefined;
}

// One after the other, each as it was seen.
async function mergeMany() {
  const shown = $("#preview"), into = visible(shown) ? $("#detail", shown)?.dataset.case : undefined;
  const chosen = marked().filter((row) => row.dataset.id !== into);
  if (whole || !into || !chosen.length) {
    return say("Select the rows that are to become part of another case, and choose that one, so that it is shown beside.");
  }
  if ((await ask(`Merge ${chosen.length} into case ${into.slice(0, 8)}: ${$("h1", shown).textContent.trim()}?`, {wordless: true})) === null) return;
  let merged = 0;
  try {
    for (const row of chosen) {
      await change(row.dataset.id, "merge", row.dataset.version, {into});
      merged += 1;
    }
    select(() => false);
    say(`${counted(merged, "case")} merged into case ${into.slice(0, 8)}.`);
  } catch (fault) {
    say(`${merged} of ${chosen.length} merged into case ${into.slice(0, 8)}; then: ${fault.message}`);
  }
  await renewed();
}

async function merge() {
  const {case: id, version} = $("#detail").dataset, text = await ask("It becomes part of which case? Its id or address", {needed: true});
  if (text === null) return;
  const into = text.match(/[0-9a-f]{16}/)?.[0];
  if (!into) return say("The id of a case has 16 characters, 0 to 9 and a to f.");
  const state = await change(id, "merge", version, {into});
  say(`Case ${id.slice(0, 8)} is part of case ${into.slice(0, 8)}.`, wayBack("merge", undefined, state));
  await renewed();
}

async function attach() {
  const {case: id} = $("#detail").dataset, picker = Object.assign(document.createElement("input"), {type: "file"});
  picker.addEventListener("change", async () => {
    const file = picker.files[0], path = api(`/v1/cases/${id}/attach`);
    try {
      await send("POST", `${path}${path.includes("?") ? "&" : "?"}name=${encodeURIComponent(file.name)}`, {body: file});
      say(`${file.name} is attached to case ${id.slice(0, 8)}.`);
      await renewed();
    } catch (fault) {
      say(fault.message);
    }
  });
  picker.click();
}

const now = async (id) => (await send("GET", api(`/v1/cases/${id}`))).case;

async function next(text, undo) {
  let taken;
  try {
    taken = await send("POST", api("/v1/cases/claim-next"), {body: {}});
  } catch (fault) {
    if (!text) throw fault;
    say(`${text} No other case was claimed: ${fault.message}`, undo);
    return renewed();
  }
  if (taken) return leave(api(`/console/cases/${taken.case_id}`), `${text ?? ""} This one is yours now.`.trim(), undo);
  if (text) return leave(inbox(), `${text} No other case waits.`, undo);
  say("No case waits that nobody has.");
}

async function label(ids, isFraud) {
  const labels = ids.map((id) => ({transaction_id: id, is_fraud: isFraud}));
  await send("POST", api("/v1/labels"), {body: {labels}});
  const words = isFraud ? "Genuine instead" : "Fraud instead";
  say(`${ids.length} labelled ${isFraud ? "fraud" : "genuine"}.`, {what: "label", words, ids, isFraud: !isFraud});
  await renewed();
  setTimeout(refreshed, 2 * LIVE_MS);
}

async function takeBack({what, id, version, ids, isFraud}) {
  $("#toast").replaceChildren();
  if (what === "label") return label(ids, isFraud);
  const state = await change(id, what, version, what === "reopen" ? {} : undefined);
  say(`Case ${id.slice(0, 8)}: ${what === "reopen" ? "open again" : "taken back"}, ${state.status}.`);
  await renewed();
}

Object.assign(actions, {
  case: actOnCase,
  cases: actOnMany,
  merge,
  "merge-many": mergeMany,
  attach,
  "claim-next": () => next(),
  undo: (button) => takeBack(JSON.parse(button.dataset.undo)),
  label: (button) => label([$("#detail").dataset.transaction], button.dataset.fraud === "true"),
  labels: async (button) => {
    const ids = marked().map((row) => row.dataset.transaction), isFraud = button.dataset.fraud === "true";
    const sure = await ask(`Label ${counted(ids.length, "transaction")} ${isFraud ? "fraud" : "genuine"}?`, {wordless: true});
    if (sure === null) return;
    select(() => false);
    await label(ids, isFraud);
  },
});
