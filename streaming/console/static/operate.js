"use strict";
// What-ifs and versions: a form becomes an order to the API; a page of a job that runs is shown anew.

const JOB_MS = 1000;

const dayAfter = (day) => new Date(Date.parse(`${day}T00:00:00Z`) + 86400000).toISOString().slice(0, 10);
const spanOf = (element) => ({from_time: `${element.dataset.from}T00:00:00Z`, to_time: `${dayAfter(element.dataset.to)}T00:00:00Z`});

function numberOf(input) {
  const value = Number(input.value);
  if (!input.value.trim() || !Number.isFinite(value)) {
    input.focus();
    throw new Error(`${input.labels[0].textContent}: expected a number.`);
  }
  return value;
}

// A text area has line breaks in one form whatever the rule has.
const inLines = (text) => text.replace(/\r\n?/g, "\n");
const ownText = (rule, where) => where.split(".").reduce((part, name) => part[name], rule);

function changedRule(rule, fields) {
  const changed = structuredClone(rule);
  changed.severity = $("[name=severity]", fields).value;
  for (const each of $$("[name=condition]", fields)) {
    if (each.value === inLines(ownText(rule, each.dataset.where))) continue;
    const [form, part] = each.dataset.where.split(".");
    if (part) changed[form][part] = each.value;
    else changed[form] = each.value;
  }
  return changed;
}

function changesOf(form) {
  const changes = {};
  for (const name of ["threshold", "alerts_per_day"]) {
    const input = form.elements[name];
    if (input && Number(input.value) !== Number(input.dataset.was)) changes[name] = numberOf(input);
  }
  const before = JSON.parse(form.dataset.rules), fields = $$("[data-rule]", form);
  const after = before.map((rule, at) => changedRule(rule, fields[at])).filter((_, at) => $("[name=on]", fields[at]).checked);
  // The rules of a file are written out: they stand in the spec then.
  if (JSON.stringify(after) !== JSON.stringify(before)) Object.assign(changes, {rules: after, rules_file: null});
  return changes;
}

async function tryOut(changes, span, warmUp) {
  const job = await send("POST", api("/v1/what-ifs"), {body: {changes, ...span, ...(warmUp ? {warm_up: warmUp} : {})}});
  return leave(api(`/console/what-ifs/${job.job_id}`));
}

function refused(within, text) {
  const place = $("[role=alert]", within);
  place.textContent = text;
  place.hidden = !text;
  if (text) place.scrollIntoView({block: "nearest"});
}

async function explained(within, work) {
  refused(within, "");
  try {
    return await work();
  } catch (fault) {
    refused(within, fault.message);
  }
}

Object.assign(actions, {
  "what-if": () => {
    const form = $("#what-if");
    if (form.reportValidity()) return explained(form, () => {
      const changes = changesOf(form);
      if (!Object.keys(changes).length) throw new Error("Change something first.");
      return tryOut(changes, spanOf(form), form.elements.warm_up.value.trim());
    });
  },
  "what-if-scores": (button) => tryOut({}, spanOf(button)),
  "stop-what-if": async (button) => {
    await send("POST", api(`/v1/what-ifs/${button.dataset.job}/stop`));
    say("It is being stopped.");
  },
});

// The page says what its stages are called.
const stages = () => JSON.parse($("[data-stages]").dataset.stages);
const placesOf = (moves) => Object.entries(moves).map(([version, stage]) => `${version} is ${stages()[stage]} now`).join(", ");

// What the API refuses is said where it was asked for, reason by reason; what was done, as the API answers.
async function move(button, path, body) {
  const place = (button.closest("[data-version]:not(button)") ?? document).querySelector("[role=alert]") ?? $(".refused");
  place.hidden = true;
  try {
    const {moved} = await send("POST", api(path), {body});
    return leave(location.href, `${placesOf(moved)}.`);
  } catch (fault) {
    place.replaceChildren(...(fault.problems ?? [fault.message]).map((each) => Object.assign(document.createElement("p"), {textContent: each})));
    place.hidden = false;
    place.scrollIntoView({block: "nearest"});
    return undefined;
  }
}

function promotionOf(button) {
  const within = button.closest("section"), body = {};
  const percent = $("[name=percent]", within), consent = $("[name=endpoint_change]", within);
  if (percent?.value.trim()) body.percent = numberOf(percent);
  if (consent?.value.trim()) body.endpoint_change = consent.value.trim();
  return body;
}

Object.assign(actions, {
  promote: async (button) => {
    const {version, to, next} = button.dataset, body = promotionOf(button);
    const why = await ask(`Promote ${version} to ${next}. Why?`, {needed: true});
    if (why) return move(button, `/v1/versions/${version}/promote`, {...body, to, why});
  },
  rollback: async (button) => {
    const {version, stage, what} = button.dataset;
    const why = await ask(`Roll back: ${what}. Why?`, {needed: true});
    if (why) return move(button, "/v1/versions/rollback", {expect: {version, stage}, why});
  },
  "what-if-version": (button) => tryOut(JSON.parse(button.dataset.spec), {}),
});

async function followJob() {
  if (!$("#job[data-running]")) return;
  const found = await rendered(location.href).then((page) => $("#job", page), () => null);
  tellReached(found !== null);
  renew($("#job"), found);
  setTimeout(followJob, JOB_MS);
}

// A page shows what cannot be seen as what it is; what is edited is the text itself.
function fillConditions(form) {
  const rules = JSON.parse(form.dataset.rules);
  for (const [at, fields] of $$("[data-rule]", form).entries()) {
    for (const each of $$("[name=condition]", fields)) each.defaultValue = ownText(rules[at], each.dataset.where);
  }
}

setTimeout(followJob, JOB_MS);
if ($("#what-if")) fillConditions($("#what-if"));
