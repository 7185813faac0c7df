"use strict";
// One page, two sources: a live run's API, or the data inside a file. Nothing here ever makes markup out of text:
// elements are created, and strings go in as textContent.

const embedded = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const PAGE = 20;
const POLL_MS = 2000;

// --- small helpers ---------------------------------------------------------------------------------------------

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined).map((c) => (c instanceof Node ? c : String(c))));
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

function figure(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value !== 0 && Math.abs(value) < 1e-3) return value.toExponential(1);
  return Number(value.toFixed(digits)).toLocaleString("en");
}

function clock(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.round(seconds), hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  const rest = String(whole % 60).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

function say(text) { $("notice").textContent = text; }

function showTip(event, text) {
  const tip = $("tip");
  tip.textContent = text;
  tip.hidden = false;
  tip.style.left = `${Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.min(event.clientY + 16, window.innerHeight - tip.offsetHeight - 8)}px`;
}

function hideTip() { $("tip").hidden = true; }

// --- where data comes from -------------------------------------------------------------------------------------

async function ask(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const address = path + (given.length ? `?${new URLSearchParams(given)}` : "");
  const token = sessionStorage.getItem("token");
  const response = await fetch(address, { headers: token ? { authorization: `Bearer ${token}` } : {}, cache: "no-store" });
  if (response.status === 401) throw Object.assign(new Error("a token is needed"), { needsToken: true });
  const body = await response.json();
  if (!response.ok) throw new Error(typeof body.detail === "string" ? body.detail : `the run answered ${response.status}`);
  return body;
}

const live = {
  status: () => ask("/v1/status"),
  rows: (after) => ask("/v1/rows", { after }),
  choices: () => ask("/v1/choices"),
  groups: (query) => ask("/v1/groups", query),
  group: (key) => ask(`/v1/groups/${encodeURIComponent(key)}`),
  compare: (prompt, a, b) => ask("/v1/compare", { prompt_id: prompt, a, b }),
};

const ORDERS = {
  newest: (a, b) => b.version - a.version,
  oldest: (a, b) => a.version - b.version,
  spread: (a, b) => spread(b) - spread(a),
  longest: (a, b) => most(b, "num_tokens") - most(a, "num_tokens"),
  lowest: (a, b) => mean(a) - mean(b),
  highest: (a, b) => mean(b) - mean(a),
  kl: (a, b) => most(b, "kl_rollout") - most(a, "kl_rollout"),
  unlikely: (a, b) => least(a, "logprob_mean") - least(b, "logprob_mean"),
};
const rewardsOf = (group) => group.rollouts.map((r) => r.reward).filter((reward) => reward !== null);
const spread = (group) => Math.max(...rewardsOf(group), -Infinity) - Math.min(...rewardsOf(group), Infinity);
const most = (group, name) => Math.max(...group.rollouts.map((r) => r[name] ?? -Infinity));
const least = (group, name) => Math.min(...group.rollouts.map((r) => r[name] ?? Infinity));
const mean = (group) => rewardsOf(group).reduce((sum, reward) => sum + reward, 0) / (rewardsOf(group).length || 1);

function matches(group, query) {
  const same = (name) => query[name] === "" || query[name] === undefined || String(group[name]) === String(query[name]);
  if (!["kind", "version", "source", "worker", "prompt_id"].every(same)) return false;
  return group.rollouts.some((rollout) =>
    (!query.status || rollout.status === query.status) &&
    (!query.finish_reason || rollout.finish_reason === query.finish_reason) &&
    (query.max_reward === "" || query.max_reward === undefined || (rollout.reward !== null && rollout.reward <= Number(query.max_reward))));
}

/** Of a file: its groups stand behind this script, and are read when they are there, those of one part at a time. */
const whole = document.readyState === "loading" ? new Promise((done) => document.addEventListener("DOMContentLoaded", done)) : Promise.resolve();
const kept = { summaries: null, places: null, parts: new Map() };

async function summaries() {
  await whole;
  if (kept.summaries === null) {
    kept.summaries = JSON.parse(document.querySelector('script[data-part="summaries"]').textContent);
    kept.places = new Map(kept.summaries.map((group, i) => [group.key, i]));
  }
  return kept.summaries;
}

async function groupOf(key) {
  await summaries();
  const place = kept.places.get(key), number = Math.floor(place / embedded.groups_a_part);
  if (!kept.parts.has(number)) kept.parts.set(number, JSON.parse(document.querySelectorAll('script[data-part="groups"]')[number].textContent));
  return kept.parts.get(number)[place % embedded.groups_a_part];
}

const file = {
  status: async () => embedded.status,
  rows: async () => embedded.rows,
  choices: async () => embedded.choices,
  groups: async (query) => {
    const found = (await summaries()).filter((group) => matches(group, query)).sort(ORDERS[query.sort]);
    return { groups: found.slice(query.offset, query.offset + query.limit), total: found.length };
  },
  group: groupOf,
  compare: async (prompt, a, b) => {
    const at = async (version) => {
      const found = (await summaries()).find((group) => group.prompt_id === prompt && group.version === version);
      if (!found) throw new Error(`this file holds no answer to ${prompt} at version ${version}`);
      return groupOf(found.key);
    };
    return { prompt_id: prompt, a: await at(a), b: await at(b) };
  },
};

const source = embedded === null ? live : file;

// --- the run at a glance ---------------------------------------------------------------------------------------

function showStatus(status) {
  document.title = `${status.run} · rayzero`;
  $("run").textContent = status.run;
  $("description").textContent = status.description;
  const done = status.num_updates ? status.update / status.num_updates : 0;
  $("progress").firstElementChild.style.width = `${100 * done}%`;
  $("progress").setAttribute("aria-valuenow", String(Math.round(100 * done)));
  const accuracies = Object.entries(status.accuracies ?? {});
  const greedy = Object.entries(status.greedy_accuracies ?? {});
  const glance = [
    ["update", `${status.update} of ${status.num_updates}`],
    ["doing", status.now ?? status.phase],
    ["reward", figure(status.figures?.reward_mean)],
    ["held-out, greedy", greedy.length ? `${figure(100 * greedy.at(-1)[1], 1)} % (update ${greedy.at(-1)[0]})` : "–"],
    ["held-out accuracy", accuracies.length ? `${figure(100 * accuracies.at(-1)[1], 1)} % (update ${accuracies.at(-1)[0]})` : "–"],
    ["tokens/s", figure(status.tokens_per_s, 0)],
    ["staleness", figure(status.figures?.staleness_mean, 1)],
    ["time left", clock(status.seconds_left)],
    ["lately", status.waits ?? "–"],
  ];
  const known = glance.filter(([, value]) => value !== "–"); // what a run has no figure of takes no place
  $("glance").replaceChildren(...known.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

function showHealth(health) {
  if (!health) return;
  const item = (finding) => el("li", {}, el("details", {}, el("summary", {}, el("span", { class: `badge ${finding.level}` }, finding.level), finding.text),
    finding.detail ? el("pre", {}, finding.detail) : null, el("p", {}, finding.advice, " ", el("span", { class: "soft" }, finding.page))));
  const open = new Set([...document.querySelectorAll("#health details[open] summary")].map((node) => node.textContent));
  $("health").className = health.level;
  const well = health.findings.length ? [] : [el("span", { class: `badge ${health.level}` }, health.level), el("span", {}, health.line)];
  $("health").replaceChildren(...well, el("ul", {}, ...health.findings.map(item)));
  for (const details of document.querySelectorAll("#health details")) details.open = open.has(details.querySelector("summary").textContent);
}

function showWorkers(workers = []) {
  const head = el("tr", {}, ...["worker", "state"].map((n) => el("th", {}, n)), ...["groups", "version", "behind"].map((n) => el("th", { class: "number" }, n)));
  $("workers").replaceChildren(head, ...workers.map((w) => el("tr", {}, el("td", {}, w.worker), el("td", {}, w.state),
    ...[w.in_flight, w.policy_version ?? "–", w.lag_versions ?? "–"].map((v) => el("td", { class: "number" }, v)))));
}

function showQueues(queues) {
  if (!queues) return;
  const head = el("tr", {}, el("th", {}, "state"), el("th", { class: "number" }, "groups"), el("th", { class: "number" }, "oldest"));
  const rows = Object.entries(queues.groups).map(([state, count]) => el("tr", {}, el("td", {}, state), el("td", { class: "number" }, count),
    el("td", { class: "number" }, queues.oldest_s[state] === undefined ? "–" : `${figure(queues.oldest_s[state], 1)} s`)));
  const dropped = Object.entries(queues.dropped).map(([reason, count]) => el("tr", {}, el("td", {}, `dropped: ${reason}`), el("td", { class: "number" }, count), el("td")));
  $("queues").replaceChildren(head, ...rows, ...dropped);
}

function showEvents(events = []) {
  const said = new Map(); // what is said again is shown once, where it was said last
  for (const { number, time_s, event: name, ...details } of events) {
    if (name === "warning") delete details.update;
    const words = Object.entries(details).map(([key, value]) => key === "text" ? value : `${key} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
    const line = words ? `${name}: ${words}` : name;
    const times = (said.get(line)?.times ?? 0) + 1;
    said.delete(line);
    said.set(line, { times, time_s });
  }
  $("events").replaceChildren(...[...said].reverse().map(([line, { times, time_s }]) =>
    el("li", {}, el("time", {}, new Date(1000 * time_s).toLocaleTimeString()), line, times > 1 ? ` (×${times})` : "")));
}

const known = { rows: [], evaluations: [] };

async function poll() {
  try {
    const status = await source.status();
    showStatus(status);
    showHealth(status.health);
    showWorkers(status.workers);
    showQueues(status.queues);
    showEvents(status.events);
    const last = known.rows.length ? known.rows.at(-1).update : 0;
    const news = await source.rows(last);
    if (news.rows.length || news.evaluations.length !== known.evaluations.length) {
      known.rows.push(...news.rows);
      known.evaluations = news.evaluations;
      drawCurves([{ run: status.run, ...known }]);
      if (news.rows.length && known.rows.length > news.rows.length) refreshTotal();
    }
    say("");
  } catch (error) {
    if (error.needsToken) return askForToken(); // and ask nothing more until it is given
    say(`no answer from the run: ${error.message}`);
  }
  window.setTimeout(poll, POLL_MS);
}

function askForToken() {
  const input = el("input", { type: "password", "aria-label": "token", autocomplete: "off", placeholder: "token" });
  const form = el("form", { id: "token", on: { submit: (event) => { event.preventDefault(); sessionStorage.setItem("token", input.value); start(); } } },
    "This run asks for a token.", input, el("button", {}, "go on"));
  $("notice").replaceChildren(form);
}

// --- rollouts --------------------------------------------------------------------------------------------------

const given = Object.fromEntries(Object.entries(embedded?.query ?? {}).map(([name, value]) => [name, value ?? ""]));
const query = { kind: "", version: "", source: "", worker: "", status: "", finish_reason: "", max_reward: "", prompt_id: "", sort: "newest", ...given, limit: PAGE, offset: 0 };
const SORTS = [["newest", "newest"], ["oldest", "oldest"], ["spread", "most disagreement"], ["longest", "longest"], ["lowest", "lowest reward"], ["highest", "highest reward"], ["kl", "highest KL"], ["unlikely", "least likely tokens"]];

function select(name, title, options) {
  const change = (event) => { query[name] = event.target.value; query.offset = 0; showGroups(); };
  return el("label", {}, title, el("select", { name, on: { change } }, ...options.map(([value, text]) => el("option", { value, selected: String(query[name]) === String(value) }, text))));
}

function showFilters(choices) {
  const any = (values) => [["", "any"], ...values.map((value) => [value, value])];
  const prompt = el("input", { name: "prompt_id", placeholder: "any", value: query.prompt_id, on: { change: (event) => { query.prompt_id = event.target.value.trim(); query.offset = 0; showGroups(); } } });
  $("filters").replaceChildren(
    select("sort", "order", SORTS),
    select("kind", "from", [["", "everything"], ["train", "training"], ["evaluation", "evaluation"], ["dropped", "dropped"]]),
    select("version", "update", any(choices.version)),
    select("source", "data source", any(choices.source)),
    select("status", "a verdict that is", any(["correct", "wrong", "error"])),
    select("max_reward", "a reward of at most", any(["0", "0.5"])),
    select("finish_reason", "ended by", any(choices.finish_reason)),
    select("worker", "worker", any(choices.worker)),
    el("label", {}, "prompt", prompt),
  );
  $("filters").onsubmit = (event) => event.preventDefault();
  showTotal(choices);
}

async function refreshTotal() {
  try {
    const choices = await source.choices();
    if ($("filters").contains(document.activeElement)) showTotal(choices); // a list that somebody has open stays open
    else showFilters(choices);
  } catch (error) { say(error.message); }
}

function showTotal(choices) {
  $("total").textContent = `(${choices.num_rollouts.toLocaleString("en")} in ${choices.num_groups.toLocaleString("en")} groups)`;
}

const asked = {};

/** The answer for the element `id`, busy until then; undefined if none came, or a later question was asked meanwhile. */
async function answerFor(id, question) {
  const mine = asked[id] = (asked[id] ?? 0) + 1;
  let answer;
  $(id).setAttribute("aria-busy", "true"); // what it shows answers an earlier question
  try { answer = await question(); } catch (error) { say(error.message); }
  if (mine !== asked[id]) return undefined;
  $(id).removeAttribute("aria-busy");
  return answer;
}

async function showGroups() {
  const page = await answerFor("groups", () => source.groups(query));
  if (!page) return;
  $("groups").replaceChildren(...page.groups.map(groupButton));
  if (!page.groups.length) $("groups").append(el("li", { class: "soft" }, "no group matches"));
  const turn = (by) => () => { query.offset = Math.max(0, query.offset + by); showGroups(); };
  $("pages").replaceChildren(
    el("button", { disabled: query.offset === 0, on: { click: turn(-PAGE) } }, "‹ newer"),
    page.total ? `${(query.offset + 1).toLocaleString("en")}–${Math.min(query.offset + PAGE, page.total).toLocaleString("en")} of ${page.total.toLocaleString("en")}` : "",
    el("button", { disabled: query.offset + PAGE >= page.total, on: { click: turn(PAGE) } }, "older ›"),
  );
  if (page.groups.length && !$("group").childElementCount) showGroup(page.groups[0].key);
}

function groupButton(group) {
  const what = { train: "update", evaluation: "evaluation at", dropped: "dropped at" }[group.kind] ?? group.kind;
  const chips = group.rollouts.slice(0, 64).map((r) => el("span", { class: `chip ${r.status}`, title: `reward ${figure(r.reward)}` }));
  return el("li", {}, el("button", { "data-key": group.key, on: { click: () => showGroup(group.key) } },
    el("span", { class: "where" }, `${what} ${group.version} · ${group.prompt_id}`), el("span", { class: "prompt" }, group.prompt), el("span", { class: "chips" }, ...chips)));
}

async function showGroup(key) {
  const group = await answerFor("group", () => source.group(key));
  if (!group) return;
  for (const button of document.querySelectorAll("#groups button")) button.setAttribute("aria-current", String(button.dataset.key === key));
  $("group").replaceChildren(...[...promptOf(group), comparison(group), el("div", { class: "cards" }, ...group.rollouts.map((r) => card(r)))].filter(Boolean));
}

function promptOf(group) {
  const messages = group.messages.map((m) => el("div", { class: "message" }, el("b", {}, m.role), m.content));
  const answer = typeof group.answer === "string" ? group.answer : JSON.stringify(group.answer);
  return [
    el("div", { class: "soft" }, `${group.prompt_id} · source ${group.source} · by ${group.worker || "–"}`, group.dropped ? ` · dropped: ${group.dropped}` : ""),
    ...messages,
    el("div", { class: "answer" }, `answer: ${answer.length > 400 ? `${answer.slice(0, 400)}…` : answer}`),
  ];
}

function comparison(group) {
  const versions = [...new Set(group.versions.map((v) => v.version))];
  if (versions.length < 2) return null;
  const pick = (name, value) => el("select", { name, "aria-label": `version ${name}` }, ...versions.map((v) => el("option", { value: v, selected: v === value }, v)));
  const [a, b] = [pick("a", versions[0]), pick("b", versions.at(-1))];
  const go = async () => {
    let both;
    try { both = await source.compare(group.prompt_id, Number(a.value), Number(b.value)); } catch (error) { return say(error.message); }
    const texts = { a: new Set(both.a.rollouts.map((r) => r.completion)), b: new Set(both.b.rollouts.map((r) => r.completion)) };
    const side = (name, other, version) => el("div", {}, el("h2", {}, `version ${version}`),
      el("div", { class: "cards" }, ...both[name].rollouts.map((r) => card(r, both[other].rollouts, !texts[other].has(r.completion)))));
    $("group").replaceChildren(...promptOf(group), comparison(group), el("div", { class: "sides" }, side("a", "b", a.value), side("b", "a", b.value)));
  };
  return el("p", { class: "soft" }, "the same prompt at version ", a, " beside ", b, " ", el("button", { id: "compare", on: { click: go } }, "compare"));
}

function card(rollout, others = [], changed = false) {
  const head = el("header", {},
    el("b", {}, rollout.reward === null ? "no reward" : `reward ${figure(rollout.reward)}`),
    el("span", { class: `badge ${rollout.status}` }, rollout.status),
    el("span", { class: "soft" }, `${rollout.num_tokens} tokens · ${rollout.finish_reason} · ${figure(rollout.seconds, 3)} s to judge`),
    typeof rollout.kl_rollout === "number" ? el("span", { class: "soft", title: "k3, sampler to learner, mean over the tokens" }, `KL ${figure(rollout.kl_rollout, 3)}`) : null,
    changed ? el("span", { class: "soft" }, "changed") : null);
  const components = Object.entries(rollout.components).flatMap(([name, value]) => [el("span", {}, name), el("meter", { min: Math.min(0, value), max: Math.max(1, value), value }), el("span", {}, figure(value))]);
  const tests = (rollout.tests ?? []).map((test, i) => el("span", { class: test.status === "pass" ? "correct" : test.status === "error" ? "error" : "wrong", title: JSON.stringify(test) }, `${i + 1} ${test.status}`));
  return el("div", { class: "card" }, head, el("div", { class: "components" }, ...components), el("div", { class: "reason" }, rollout.reason),
    tests.length ? el("div", { class: "tests" }, ...tests) : null, episode(rollout.episode), tokens(rollout, others[rollout.index]),
    ...(rollout.episode?.branches ?? []).map(branchOf));
}

const callOf = (call) => `${call.name}(${JSON.stringify(call.arguments)})${call.error ? ` — ${call.error}` : ""}`;

function episode(episode) { // the conversation after the prompt, as its environment saw it
  if (!episode?.outcome) return null;
  const { outcome, turns, branches } = episode;
  let spoken = 0;
  const all = [...turns, ...branches.flatMap((branch) => branch.turns)];
  const said = outcome.messages.map((message) => {
    const turn = message.role === "assistant" ? all[spoken++] : null;
    const seconds = turn ? ` · engine ${figure(turn.engine_s, 2)} s · environment ${figure(turn.environment_s, 2)} s` : "";
    return el("div", { class: `message ${message.role}` }, el("b", {}, message.role === "assistant" ? `turn ${spoken}` : message.role),
      message.content, ...(message.tool_calls ?? []).map((call) => el("code", { class: call.error ? "call error" : "call" }, callOf(call))), el("span", { class: "soft" }, seconds));
  });
  const reward = outcome.reward === null ? "" : ` · its own reward ${figure(outcome.reward)}`;
  return el("div", { class: "episode" }, el("div", { class: "soft" }, `ended: ${episode.end}${outcome.reason ? ` (${outcome.reason})` : ""}${reward}`), ...said);
}

function branchOf(branch, index) { // what left the context of another completion
  const from = branch.parent === 0 ? "the main completion" : `branch ${branch.parent}`;
  return el("div", { class: "branch" }, el("div", { class: "soft" }, `branch ${index + 1} leaves ${from} after ${branch.fork} tokens, prompt included: ${branch.reason || "–"}`), tokens({ ...branch, episode: branch }));
}

function tokens(rollout, other) {
  const box = el("p", { class: "text" });
  if (!rollout.tokens) { box.textContent = rollout.completion; return box; }
  const spans = rollout.versions;
  const versionAt = (i) => spans.find(([from, to]) => from <= i && i < to)?.[2];
  const first = spans.length ? spans[0][2] : 0;
  const observed = rollout.episode?.observed ?? [];
  const differsFrom = other?.tokens ? rollout.tokens.findIndex((text, i) => text !== other.tokens[i]) : -1;
  rollout.tokens.forEach((text, i) => {
    if (observed.some(([from, to]) => from <= i && i < to)) {
      const heard = `token ${i}: ${JSON.stringify(text)} (${rollout.token_ids[i]})\nsaid by the environment: context, never trained`;
      box.append(el("span", { class: "token observed", on: { mousemove: (event) => showTip(event, heard), mouseleave: hideTip } }, text));
      return;
    }
    const logprob = rollout.rollout_logprobs[i] ?? -Infinity, version = versionAt(i);
    const surprise = Math.min(4, Math.floor(-logprob * 1.6 + 0.35));
    const classes = ["token", `u${Math.max(0, surprise)}`, version !== first ? "newer" : "", differsFrom >= 0 && i >= differsFrom ? "differs" : ""].join(" ");
    const tip = `token ${i}: ${JSON.stringify(text)} (${rollout.token_ids[i]})\nlog-probability ${logprob === -Infinity ? "−∞" : figure(logprob, 4)}, p = ${figure(Math.exp(logprob), 3)}\npolicy version ${version}`;
    box.append(el("span", { class: classes, on: { mousemove: (event) => showTip(event, tip), mouseleave: hideTip } }, text));
  });
  return box;
}

// --- begin -----------------------------------------------------------------------------------------------------

/** A page of several runs has no state of one of them at its top. */
function showNames(names) {
  document.title = `${names.join(", ")} · rayzero`;
  $("run").textContent = names.join(" beside ");
  for (const id of ["description", "progress", "health", "glance"]) $(id).hidden = true;
}

async function start() {
  $("live").hidden = false;
  if (source === live) poll();
  else {
    showStatus(embedded.status);
    showHealth(embedded.status.health);
    drawCurves([embedded.rows, ...embedded.others]);
    $("browser").hidden = !embedded.choices.num_groups;
    if (embedded.others.length) showNames([embedded.rows, ...embedded.others].map((each) => each.run));
    for (const id of ["workers", "queues", "events"]) $(id).parentElement.hidden = true;
  }
  try {
    showFilters(await source.choices());
    await showGroups();
  } catch (error) {
    if (!error.needsToken) say(error.message);
  }
}

start();
