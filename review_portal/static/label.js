// The labeling loop: a ring of leased items, one key per decision, nothing waits for the server.

import { Outbox } from "./outbox.js";
import { element, maskCount, moveSelection, selectedSpan, show, showText } from "./show.js";

const RING = 20;
const REFILL_AT = 10;
const UNDO_MAX = 20;
const RETRY_MILLISECONDS = 4000;
const HEARTBEAT_MILLISECONDS = 60000;
const IDLE_SECONDS = 60;
const LISTED_MAX = 12;
const DEFAULT_KEYS = {
  accept: ["Enter", " "], cannot_tell: ["0", "x"], undo: ["u", "Backspace"], skip: ["s"], note: ["n"],
  flag: ["f"], guideline: ["g"], evidence: ["e"], search: ["/"], help: ["?"],
};

const desk = document.getElementById("desk");
const boot = JSON.parse(desk.dataset.boot);
const texts = boot.texts;
const keys = { ...DEFAULT_KEYS, ...(boot.preferences.keys || {}) };
const keysOn = boot.preferences.single_keys !== false;
const at = (id) => document.getElementById(id);

let classes = [];
let schemaVersion = 0;
let flagToken = "";
let mode = "single";
let named = false;
let picked = new Set();
let marks = [];
let evidenceOn = boot.preferences.evidence !== false;
let ring = [];
let current = null;
let history = [];
let outbox = null;
let csrf = boot.csrf_token;
let waiting = 0;
let doneNow = 0;
let online = true;
let loggedOut = false;
let fetching = false;
let renewed = false;
let sending = false;
let shownAt = 0;
let activeSeconds = 0;
let lastActive = 0;
const decidedLeases = new Set();

const fill = (key, values = {}) =>
  Object.entries(values).reduce((text, [name, value]) => text.replace(`{${name}}`, value), texts[key] ?? key);

function token() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}

async function call(path, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "content-type": "application/json", "x-csrf-token": csrf },
    body: JSON.stringify(body),
  };
  const response = await fetch(path, { credentials: "same-origin", ...options });
  if (response.status === 401) loggedOut = true;
  const answer = response.headers.get("content-type")?.includes("json") ? await response.json() : {};
  return { ok: response.ok, status: response.status, answer };
}

// Why something was refused, in the reader's language where the reason is a known one.
const refusal = (answer) => texts[`label.no.${answer.reason}`] ?? answer.message ?? "";

function toast(text) {
  at("toast").textContent = text;
}

function showSync() {
  const line = at("sync");
  const count = outbox ? outbox.size : 0;
  line.dataset.state = loggedOut ? "out" : !online ? "offline" : count ? "waiting" : "saved";
  if (loggedOut) {
    // Said once: a screen reader would read the same line again with each decision.
    if (line.dataset.count !== String(count)) line.replaceChildren(`${fill("label.logged_out", { count })} `, element("a", { href: "/login" }, texts["label.log_in"]));
  } else line.textContent = !online ? fill("label.offline", { count }) : count ? fill("label.waiting", { count }) : texts["label.saved"];
  line.dataset.count = loggedOut ? count : "";
  const left = Math.max(0, waiting - (outbox ? outbox.size : 0));
  at("progress").textContent = `${fill("label.done_now", { count: doneNow })} · ${fill("label.left", { count: left })}`;
}

// Time counts only while the person is there: pauses of more than a minute are cut.
function noteActivity(now = performance.now()) {
  activeSeconds += Math.min((now - lastActive) / 1000, IDLE_SECONDS);
  lastActive = now;
}

function prepared(item) {
  item.evidence_shown = evidenceOn;
  item.shown = show(item, texts);
  return item;
}

async function refill() {
  if (fetching || loggedOut || ring.length > REFILL_AT) return;
  fetching = true;
  const count = Math.min(50, RING + (outbox.size ? Math.min(outbox.size, 30) : 0));
  const before = new Set(decidedLeases);
  try {
    // The first time, leases get new ids: what the page before still says about the old ones is void.
    const { ok, answer } = await call(`/api/queue?campaign=${encodeURIComponent(boot.campaign)}&count=${count}&renew=${!renewed}`);
    online = true;
    if (ok) {
      renewed = true;
      waiting = answer.waiting_count;
      const known = new Set([...ring, ...(current ? [current] : [])].map((item) => item.item_id));
      for (const entry of outbox.memory) known.add(entry.body.item_id);
      for (const past of history) if (!before.has(past.item.lease_id)) known.add(past.item.item_id);
      for (const item of answer.items)
        if (!known.has(item.item_id) && !decidedLeases.has(item.lease_id)) ring.push(prepared(item));
    } else if (!current) {
      toast(refusal(answer));
    }
  } catch {
    online = false;
  }
  fetching = false;
  if (!current) next();
  showSync();
}

async function flush() {
  if (sending || loggedOut || !outbox.size) return showSync();
  sending = true;
  try {
    while (outbox.size && !loggedOut) {
      const front = outbox.front(50);
      if (!(await sendFront(front))) break;
      online = true;
      showSync();
    }
  } catch {
    online = false;
  }
  sending = false;
  showSync();
}

// Answers after which a repeat would change nothing.
const FINAL = new Set([400, 404, 409, 413, 422]);

async function sendFront(front) {
  if (front[0].path !== "/api/annotations") {
    const { ok, status, answer } = await call(front[0].path, front[0].body);
    if (!ok && !FINAL.has(status)) return renewCsrf(status);
    if (!ok && front[0].path === "/api/undo") toast(`${texts["label.undo_refused"]} ${refusal(answer)}`);
    else if (!ok) toast(fill("label.refused", { message: refusal(answer) }));
    await outbox.remove([front[0]]);
    return true;
  }
  const { ok, status, answer } = await call("/api/annotations/batch", { annotations: front.map((e) => e.body) });
  // One entry that cannot be read must not hold up the others for ever.
  if (!ok && FINAL.has(status) && front.length > 1) return sendFront(front.slice(0, 1));
  if (!ok && !FINAL.has(status)) return renewCsrf(status);
  for (const receipt of ok ? answer : [answer])
    if (!ok || receipt.stored === "refused") toast(fill("label.refused", { message: refusal(receipt) }));
  await outbox.remove(front);
  return true;
}

async function renewCsrf(status) {
  if (status !== 403) return false;
  const { answer } = await call("/api/session");
  const changed = answer.authenticated && answer.csrf_token !== csrf;
  if (changed) csrf = answer.csrf_token;
  else loggedOut = !answer.authenticated;
  return changed;
}

function decide(answer) {
  if (!current) return;
  performance.mark("decision");
  noteActivity();
  const item = current;
  const body = {
    item_id: item.item_id,
    lease_id: item.lease_id,
    class_index: null,
    seconds: Math.round(activeSeconds * 10) / 10,
    client_token: token(),
    note: at("note").value.trim(),
    suggestion_shown: Boolean(item.suggestion) && boot.preferences.suggestions !== false,
    schema_version: schemaVersion,
    ...answer,
  };
  // Places count in the text that was shown: it may have changed once the decision arrives.
  if (body.spans) body.content_sha256 = item.content_sha256;
  decidedLeases.add(item.lease_id);
  history.push({ item, token: body.client_token, note: body.note, marks, picked });
  if (history.length > UNDO_MAX) history.shift();
  doneNow += 1;
  current = null;
  next();
  toast(fill("label.announce", { name: whatWas(answer) }));
  outbox.add("/api/annotations", body).then(flush);
  showSync();
  refill();
}

// What was decided, for the line that confirms it.
function whatWas(answer) {
  if (answer.spans?.length === 0) return texts["label.nothing_here"];
  const chosen = answer.spans?.map((span) => span.class_index) ?? answer.class_indices ?? [answer.class_index];
  return [...new Set(chosen)].map((index) => classes[index] ?? texts["label.cannot_tell"]).join(", ");
}

function undo() {
  const past = history.pop();
  if (!past) return toast(texts["label.nothing_to_undo"]);
  if (current) ring.unshift(current);
  doneNow -= 1;
  current = null;
  const waits = outbox.find(past.token);
  const entry = sending ? undefined : waits;
  if (entry) outbox.remove([entry]);
  else {
    outbox.add("/api/undo", { client_token: token(), of_token: past.token }).then(flush);
    past.item.lease_id = null;
  }
  decidedLeases.delete(past.item.lease_id);
  // What was reported meanwhile is gone from the item: it comes again from the server.
  if (!past.item.stale) ring.unshift(past.item);
  next();
  // What was marked or picked is there again, to be mended.
  if (current === past.item) ({ marks, picked } = past);
  if (marks.length) renderMarks();
  if (picked.size) renderClasses();
  // The note goes from the case notes with its decision, and comes back to be written anew.
  if (past.note && !past.item.stale) {
    at("note").value = past.note;
    at("note-box").hidden = false;
  }
  showSync();
  toast(texts["label.undone"]);
}

function skip() {
  if (!current) return;
  const item = current;
  current = null;
  decidedLeases.add(item.lease_id);
  next();
  outbox.add("/api/skips", { item_id: item.item_id }).then(flush);
  showSync();
  refill();
}

function next() {
  current = ring.shift() ?? null;
  at("note").value = "";
  at("note-box").hidden = true;
  at("search").value = "";
  picked = new Set();
  marks = [];
  activeSeconds = 0;
  lastActive = performance.now();
  render();
  if (document.activeElement?.tagName !== "INPUT" || document.activeElement.id === "search") at("item").focus({ preventScroll: true });
  shownAt = performance.now();
  requestAnimationFrame(() => performance.mark("painted"));
}

function render() {
  const box = at("item");
  desk.dataset.item = current ? current.item_id : "";
  desk.classList.toggle("idle", !current);
  if (!current) {
    box.replaceChildren(element("p", { class: "quiet-big" }, texts["label.empty"]), element("p", {}, whyEmpty()));
    for (const id of ["facts", "suggestion", "classes", "actions"]) at(id).replaceChildren();
    at("search-box").hidden = true;
    return;
  }
  if (mode === "spans") current.shown = showText(current, texts);
  box.replaceChildren(current.shown);
  renderFacts();
  renderSuggestion();
  renderClasses();
  renderActions();
}

function whyEmpty() {
  if (loggedOut) return fill("label.logged_out", { count: outbox ? outbox.size : 0 });
  if (!online) return texts["label.empty_offline"];
  return waiting ? texts["label.empty_elsewhere"] : texts["label.empty_lead"];
}

function renderFacts() {
  const masks = maskCount(current);
  const masked = current.mask_level === "none"
    ? texts["label.masked_kind"]
    : masks === 1 ? texts["label.masked_one"] : masks ? fill("label.masked_count", { count: masks }) : texts["label.masked_none"];
  at("facts").replaceChildren(
    element("p", { class: "fact why" }, element("span", { class: "fact-name" }, texts["label.why"]), ` ${texts[`label.reason.${current.reason}`] ?? ""}`),
    element("p", { class: "fact" }, element("span", { class: "fact-name" }, texts["label.masked"]), ` ${masked} `,
      ...(boot.unmasking && masks && current.kind === "text" ? [element("a", { href: `/unmask?item=${current.item_id}`, target: "_blank", rel: "noopener" }, texts["label.unmask"])] : [])),
  );
}

function sureness(confidence) {
  const level = confidence >= 0.95 ? 4 : confidence >= 0.8 ? 3 : confidence >= 0.5 ? 2 : 1;
  return { level, words: texts[`label.sure.${level}`] };
}

// Classes that are named by digits have those digits as their keys.
const classKey = (index, place) => (named ? classes[index] : place < 9 ? String(place + 1) : "");

const suggested = () => (boot.preferences.suggestions === false ? null : current?.suggestion ?? null);

function renderSuggestion() {
  const suggestion = suggested();
  if (mode !== "single") {
    const submit = element("button", { type: "button", class: "primary accept" },
      element("span", { id: "submit-words" }, texts[mode === "spans" ? "label.submit_nothing" : "label.submit"]), element("span", { class: "key-hint" }, keyName(keys.accept[0])));
    submit.addEventListener("click", submitChosen);
    const hint = texts[mode === "multi" ? "label.multi_hint" : "label.spans_hint"];
    at("suggestion").replaceChildren(element("p", { class: "hint" }, hint), submit);
    return;
  }
  if (!suggestion) {
    at("suggestion").replaceChildren(element("p", { class: "hint" }, texts["label.no_suggestion"]));
    return;
  }
  const { level, words } = sureness(suggestion.confidence);
  const percent = Math.round(suggestion.confidence * 100);
  const button = element("button", { type: "button", class: "primary accept", id: "accept" },
    element("span", { class: "class-name" }, classes[suggestion.class_index]),
    element("span", { class: "key-hint" }, keyName(keys.accept[0])));
  button.setAttribute("aria-label", `${texts["label.accept"]}: ${classes[suggestion.class_index]}, ${words}, ${percent} %`);
  button.addEventListener("click", accept);
  at("suggestion").replaceChildren(
    element("p", { class: "suggestion-head" }, element("span", {}, texts["label.suggestion"]),
      element("span", { class: `sure sure-${level}` }, `${words} · ${percent} %`)),
    button,
  );
}

// At most twelve classes keep the order of the schema; more are listed by how likely they are.
function orderedClasses() {
  const all = classes.map((_, index) => index);
  if (classes.length <= LISTED_MAX) return all;
  const p = current.probabilities;
  return p.length ? all.sort((a, b) => p[b] - p[a] || a - b) : all;
}

const isMany = () => classes.length > (named ? 10 : 9);

function choose(index) {
  if (mode === "multi") {
    if (!picked.delete(index)) picked.add(index);
    renderClasses();
  } else if (mode === "spans") mark(index);
  else decide({ class_index: index });
}

function mark(index) {
  const span = selectedSpan(at("item").querySelector(".text"));
  if (!span) return toast(texts["label.select_first"]);
  marks = marks.filter((m) => m.end <= span.start || m.start >= span.end);
  marks.push({ ...span, class_index: index });
  document.getSelection().removeAllRanges();
  renderMarks();
}

function renderMarks() {
  current.shown = showText(current, texts, marks, classes);
  at("item").replaceChildren(current.shown);
  const words = (m) => Array.from(current.text).slice(m.start, m.end).join("");
  const buttons = marks.map((m) => {
    const name = classes[m.class_index];
    const button = element("button", { type: "button", class: "quiet" }, `${words(m)}: ${name} ×`);
    button.setAttribute("aria-label", fill("label.span_remove", { text: words(m), name }));
    button.addEventListener("click", () => {
      marks = marks.filter((other) => other !== m);
      renderMarks();
    });
    return button;
  });
  at("submit-words").textContent = marks.length ? texts["label.submit"] : texts["label.submit_nothing"];
  at("facts").replaceChildren(...(buttons.length ? buttons : [element("p", { class: "fact" }, texts["label.spans_none"])]));
}

function submitChosen() {
  if (mode === "multi") {
    const chosen = [...picked].sort((a, b) => a - b);
    if (chosen.length) decide({ class_index: chosen[0], class_indices: chosen });
    else if (suggested()) acceptSuggestion();
    else toast(texts["label.choose_first"]);
  } else decide({ spans: marks.map(({ start, end, class_index }) => ({ start, end, class_index })) });
}

function renderClasses() {
  const many = isMany();
  at("search-box").hidden = !many;
  const words = at("search").value.trim().toLowerCase();
  const order = orderedClasses();
  const matching = words ? order.filter((index) => classes[index].toLowerCase().includes(words)) : order;
  current.listed = matching;
  const listed = matching.slice(0, words ? 30 : classes.length > LISTED_MAX ? 9 : LISTED_MAX);
  at("classes").classList.toggle("many", classes.length > 6);
  const buttons = listed.map((index, place) => {
    const button = element("button", { type: "button", class: "class" },
      element("span", { class: "key-hint" }, keysOn ? classKey(index, place) : ""),
      element("span", { class: "class-name" }, classes[index]));
    button.dataset.index = index;
    if (suggested()?.class_index === index) button.classList.add("suggested");
    if (mode === "multi") button.setAttribute("aria-pressed", String(picked.has(index)));
    // A click would take the focus, and with it the selected words.
    if (mode === "spans") button.addEventListener("pointerdown", (event) => event.preventDefault());
    button.addEventListener("click", () => choose(index));
    return button;
  });
  const heading = classes.length > LISTED_MAX && !words ? [element("p", { class: "hint" }, fill("label.classes_likely", { count: classes.length }))] : [];
  at("classes").replaceChildren(...heading, ...(buttons.length ? buttons : [element("p", { class: "hint" }, texts["label.search_none"])]));
}

const ACTIONS = { cannot_tell: () => decide({ reason_code: "unclear" }), skip, undo, note: openNote, flag: openFlag, guideline: toggleGuideline, evidence: toggleEvidence, help: openKeys };

function renderActions() {
  const labels = { cannot_tell: "label.cannot_tell", skip: "label.skip", undo: "label.undo", note: "label.note", flag: "label.flag", guideline: "label.guideline", evidence: "label.evidence", help: "label.keys" };
  at("actions").replaceChildren(
    ...Object.entries(ACTIONS).filter(([name]) => name !== "evidence" || current.kind === "text").map(([name, run]) => {
      const button = element("button", { type: "button", class: "quiet", id: `do-${name}` },
        element("span", {}, texts[labels[name]]), element("span", { class: "key-hint" }, keyName(freeKey(name))));
      button.disabled = name === "undo" && history.length === 0;
      if (name === "evidence") button.title = texts["label.evidence_hint"];
      button.addEventListener("click", run);
      return button;
    }),
  );
}

const freeKey = (name) => (keys[name] ?? []).find((key) => !(named && /^[0-9]$/.test(key))) ?? "";

function toggleEvidence() {
  evidenceOn = !evidenceOn;
  for (const item of [current, ...ring, ...history.map((past) => past.item)])
    if (item?.kind === "text") prepared(item);
  if (current) at("item").replaceChildren(current.shown);
}

function keyName(key) {
  if (!keysOn) return "";
  return { Enter: "↵", " ": "␣", Backspace: "⌫" }[key] ?? key;
}

function accept() {
  if (mode === "single") acceptSuggestion();
  else submitChosen();
}

function acceptSuggestion() {
  const suggestion = suggested();
  if (suggestion) decide({ class_index: suggestion.class_index });
}

function openNote() {
  at("note-box").hidden = false;
  at("note").focus();
}

function openFlag() {
  if (!current) return;
  at("flag-note").value = "";
  at("flag-words").value = selectedWords();
  at("flag-problem").hidden = true;
  flagToken = token();
  // A box that is closed by Escape keeps what it returned the last time.
  at("flag-box").returnValue = "";
  at("flag-box").showModal();
}

async function loadExamples() {
  const { ok, answer } = await call(`/api/examples?campaign=${encodeURIComponent(boot.campaign)}`).catch(() => ({}));
  if (!ok || !answer.length) return;
  const box = element("section", { class: "examples" }, element("h3", {}, texts["label.examples"]));
  for (const [index, name] of classes.entries()) {
    const shown = answer.filter((example) => example.class_index === index);
    if (shown.length) box.append(element("h4", {}, name), ...shown.map((example) => element("div", { class: "example" }, show({ ...example, evidence: [] }, texts))));
  }
  at("guideline-body").append(box);
}

let examplesAsked = false;

function toggleGuideline() {
  if (!examplesAsked) loadExamples();
  examplesAsked = true;
  at("guideline").hidden = !at("guideline").hidden;
  desk.classList.toggle("with-guideline", !at("guideline").hidden);
}

function openKeys() {
  const rows = [["digits", [named ? "0–9" : "1–9"]], ...Object.entries(keys)];
  at("keys-list").replaceChildren(
    ...rows.flatMap(([name, bound]) => [
      element("dt", {}, ...bound.map((key) => element("kbd", {}, keyName(key) || key))),
      element("dd", {}, texts[`label.key.${name}`]),
    ]),
  );
  if (!keysOn) toast(texts["label.keys_off"]);
  at("keys-box").showModal();
}

// What is selected inside of the item, as it stands there.
function selectedWords() {
  const span = selectedSpan(at("item").querySelector(".text"));
  if (span) return Array.from(current.text).slice(span.start, span.end).join("").slice(0, 200);
  const selection = document.getSelection();
  const inside = selection.rangeCount && at("item").contains(selection.anchorNode) && at("item").contains(selection.focusNode);
  return inside ? selection.toString().trim().slice(0, 200) : "";
}

// Words of an item never wait in the outbox, which is on disk: they go at once or not at all.
async function sendLeak(words) {
  const item = current;
  const body = { item_id: item.item_id, reason_code: "personal_information", note: at("flag-note").value, words, client_token: flagToken };
  let { ok, status, answer } = await call("/api/flags", body).catch(() => ({}));
  if (status === 403 && (await renewCsrf(status).catch(() => false))) ({ ok, answer } = await call("/api/flags", body).catch(() => ({})));
  if (!ok) {
    at("flag-problem").textContent = answer ? fill("label.refused", { message: refusal(answer) }) : texts["label.leak_offline"];
    at("flag-problem").hidden = false;
    at("flag-box").returnValue = "";
    at("flag-box").showModal();
    return at("flag-words").focus();
  }
  // What this page holds already may show the words, too: it is fetched again.
  ring = [];
  for (const past of history) past.item.stale = true;
  if (current === item) skip();
  toast(texts["label.leak_done"]);
}

function sendFlag() {
  if (!current) return;
  const reason = document.querySelector("input[name=flag]:checked").value;
  const words = at("flag-words").value.trim();
  if (words && reason === "personal_information") return sendLeak(words);
  outbox.add("/api/flags", { item_id: current.item_id, reason_code: reason, note: at("flag-note").value, client_token: flagToken });
  skip();
  toast(texts["label.flagged"]);
}

function typing(target) {
  return target.closest("input, textarea, select, dialog[open], [contenteditable]") !== null;
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const target = event.target instanceof Element ? event.target : document.body;
  if (typing(target)) {
    if (event.key === "Escape" && !target.closest("dialog")) at("item").focus();
    if (event.target.id === "search" && event.key === "Enter" && current?.listed?.length) {
      event.preventDefault();
      choose(current.listed[0]);
      event.target.blur();
    }
    return;
  }
  if (mode === "spans" && current && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
    event.preventDefault();
    moveSelection(at("item").querySelector(".text"), event.key === "ArrowRight" ? "forward" : "backward", event.shiftKey);
    return;
  }
  if (!keysOn || event.repeat) return;
  // Enter and space on a focused control do what that control says.
  if ((event.key === "Enter" || event.key === " ") && target.closest("a, button, summary")) return;
  const run = (/^[0-9]$/.test(event.key) && classOfDigit(event.key)) || boundTo(event.key);
  if (!run) return;
  event.preventDefault();
  run();
}

function boundTo(key) {
  const actions = { ...ACTIONS, accept, search: () => !at("search-box").hidden && at("search").focus() };
  const found = Object.keys(keys).find((name) => keys[name].some((k) => k.toLowerCase() === key.toLowerCase()));
  return found ? actions[found] : null;
}

function classOfDigit(key) {
  const index = named ? classes.indexOf(key) : current?.listed?.[Number(key) - 1];
  return index === undefined || index < 0 ? null : () => choose(index);
}

// A page that closes gives its items back at once, so that colleagues need not wait for the lease.
function giveBack() {
  const held = [current, ...ring].map((item) => item?.lease_id).filter(Boolean);
  if (!held.length || loggedOut) return;
  fetch("/api/leases/release", {
    method: "POST", keepalive: true, credentials: "same-origin",
    headers: { "content-type": "application/json", "x-csrf-token": csrf },
    body: JSON.stringify({ lease_ids: held.slice(0, 50) }),
  }).catch(() => {});
}

async function start() {
  outbox = await Outbox.open(boot.person_id);
  classes = boot.classes;
  schemaVersion = boot.schema_version;
  mode = boot.kind === "text" ? boot.answer_mode : boot.answer_mode === "multi" ? "multi" : "single";
  named = classes.every((name) => /^[0-9]$/.test(name));
  document.addEventListener("keydown", onKey);
  for (const name of ["pointermove", "keydown", "scroll"])
    document.addEventListener(name, () => noteActivity(), { passive: true });
  at("search").addEventListener("input", () => current && renderClasses());
  at("note-done").addEventListener("click", () => {
    at("note-box").hidden = true;
    if (at("note").value.trim()) toast(texts["label.note_kept"]);
    at("item").focus();
  });
  at("flag-words").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey) return;
    event.preventDefault();
    at("flag-box").querySelector("[value=send]").click();
  });
  at("flag-box").addEventListener("close", () => at("flag-box").returnValue === "send" && sendFlag());
  window.addEventListener("online", flush);
  window.addEventListener("pagehide", giveBack);
  window.addEventListener("pageshow", (event) => event.persisted && location.reload());
  await refill();
  await flush();
  setInterval(() => { flush(); refill(); }, RETRY_MILLISECONDS);
  setInterval(() => { if (!loggedOut) call("/api/leases/extend", {}).catch(() => {}); }, HEARTBEAT_MILLISECONDS);
  desk.dataset.ready = "yes";
}

start();
