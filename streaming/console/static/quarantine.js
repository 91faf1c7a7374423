"use strict";
// Taking records in again: first what would become of them, then why, then the request.

function showTrial(trial) {
  const again = Object.entries(trial.would_be_rejected).map(([reason, count]) => `${count} ${reason.replaceAll("_", " ")}`);
  const facts = [
    ["Records", trial.records], ["Would be stored", trial.would_be_stored],
    ["Would be rejected again", again.join(", ") || 0], ["Not wanted by the contract", trial.would_be_filtered],
    ["Stored already, stay here", trial.stored_already], ["Batches", trial.batches],
  ];
  $("#requeue-facts").replaceChildren(...facts.flatMap(([name, value]) => [
    Object.assign(document.createElement("dt"), {textContent: name}),
    Object.assign(document.createElement("dd"), {textContent: value.toLocaleString("en")}),
  ]));
}

function whyOf(trial) {
  const dialog = $("#requeue"), why = $("#requeue-why");
  showTrial(trial);
  why.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  why.focus();
  return new Promise((settle) => {
    dialog.addEventListener("close", () => settle(dialog.returnValue ? why.value.trim() : null), {once: true});
  });
}

Object.assign(actions, {
  requeue: async (button) => {
    const order = JSON.parse(button.dataset.order), path = api("/v1/quarantine/requeue");
    say("Trying what would become of them …");
    const trial = await send("POST", path, {body: {...order, why: "dry run", dry_run: true}});
    say("");
    if (trial.stored_already === trial.records) return say("All of them are stored already: nothing was asked.");
    const why = await whyOf(trial);
    if (why === null) return;
    const done = await send("POST", path, {body: {...order, why, expect: trial.records}});
    const taken = done.records - done.stored_already;
    return leave(api("/console/quarantine/requests"), `Asked for ${counted(taken, "record")}: request ${done.request}.`);
  },
});
