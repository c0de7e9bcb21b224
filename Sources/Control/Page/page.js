// The page for operators. Everything it shows was chosen by somebody else: hosts by the sandboxes, ids and metadata by
// whoever created them. So text goes into text nodes and nowhere else; nothing here parses markup.
//
//   /v1/sandboxes        asked every few seconds ──▶ the table
//   /v1/audit            the newest once         ─┐
//   /v1/audit/stream     as they happen          ─┴▶ Denials (one entry for what is the same) ──▶ the list, as seldom as
//                                                     the eye needs, and not while somebody points at it
//   /v1/questions        asked likewise, and when a record tells that one has been asked or has ended ──▶ the questions
//   /v1/policies/suggest when Allow is pressed    ──▶ the rule and its place ──▶ Confirm: PATCH with If-Match

const find = (id) => document.getElementById(id);

/** Control and format characters (bidirectional overrides, zero-width ones) as their numbers: they must not mislead. */
const visible = (text) =>
  String(text).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);

/** A host as a sandbox gave it: a name is ASCII, and what is not is no name that a person should take for one. */
const visibleHost = (text) => visible(text).replace(/[^\x20-\x7e]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);

/** An element with a class and children; strings become text. */
function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function show(node, isShown) {
  node.hidden = !isShown;
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// Time

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const calendar = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

function timeText(date) {
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? clock.format(date) : `${calendar.format(date)} ${clock.format(date)}`;
}

/** How long until then, in one unit. */
function untilText(text) {
  if (!text) return "never";
  const seconds = Math.round((new Date(text) - Date.now()) / 1000);
  if (seconds <= 0) return "over";
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const [name, size] = units.find(([, length]) => seconds >= length);
  return `in ${Math.floor(seconds / size)} ${name}`;
}

// The API

class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const tokenKey = "sandgate-token";
let tokenAnswer = null;

/** Asks for a token, once for all who wait for it. */
function askForToken(wasRefused) {
  tokenAnswer ??= new Promise((resolve) => {
    const dialog = find("token-dialog");
    show(find("token-problem"), wasRefused);
    find("token-form").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(tokenKey, find("token").value.trim());
      find("token").value = "";
      dialog.close();
      tokenAnswer = null;
      resolve();
    };
    dialog.oncancel = (event) => event.preventDefault();
    dialog.showModal();
  });
  return tokenAnswer;
}

/** Asks the API; throws what it says when it refuses. */
async function ask(path, { method = "GET", headers = {}, body, signal } = {}) {
  for (;;) {
    const token = sessionStorage.getItem(tokenKey);
    const fields = { ...headers };
    if (token) fields.Authorization = `Bearer ${token}`;
    if (body !== undefined) fields["Content-Type"] = "application/json";
    const answer = await fetch(path, {
      method,
      headers: fields,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
    if (answer.status === 401) {
      // Unless somebody has given another one meanwhile.
      if (sessionStorage.getItem(tokenKey) === token) await askForToken(token !== null);
      continue;
    }
    if (answer.ok) return answer;
    const problem = await answer.json().catch(() => null);
    const details = (problem?.details ?? []).map((detail) => detail.message);
    const message = problem?.message ?? `status ${answer.status}`;
    throw new Refusal(answer.status, [message, ...details.filter((one) => !message.includes(one))].join(": "));
  }
}

const askJSON = async (path, options) => (await ask(path, options)).json();

const sandboxPath = (id, rest = "") => `v1/sandboxes/${encodeURIComponent(id)}${rest}`;

// Denials

/** What was refused, with everything that is the same in one entry. */
class Denials {
  static limit = 2000;
  static remembered = 50_000;

  entries = new Map();
  #seen = new Set();

  /** Takes a record; gives whether it was new. */
  add(record) {
    if (this.#seen.has(record.seq)) return false;
    this.#seen.add(record.seq);
    if (this.#seen.size > Denials.remembered) this.#seen = new Set([...this.#seen].slice(-Denials.remembered / 2));
    const key = JSON.stringify([
      record.sandbox, record.host ?? null, Denials.showsAddress(record) ? record.ip : null, record.port ?? null,
      record.protocol ?? null, record.layer, record.reason, record.rule?.target ?? null, record.report === true,
    ]);
    const entry = this.entries.get(key) ?? { key, count: 0, record, allowed: null };
    entry.count += record.count ?? 1;
    if (record.seq >= entry.record.seq) entry.record = record;
    // Refused by a policy that was to allow it: it may be asked for again.
    if (entry.allowed !== null && (record.policyRevision ?? 0) >= entry.allowed) entry.allowed = null;
    this.entries.set(key, entry);
    if (this.entries.size > Denials.limit) this.#forgetOldest();
    return true;
  }

  /** A name of many addresses is one destination, unless the address is what was wrong. */
  static showsAddress(record) {
    return !record.host || record.layer === "ip" || ["guard-range", "name-address-mismatch"].includes(record.reason);
  }

  /** The newest first; of one sandbox, or of all. */
  newest(sandbox) {
    return [...this.entries.values()]
      .filter((entry) => sandbox === null || entry.record.sandbox === sandbox)
      .sort((left, right) => right.record.seq - left.record.seq);
  }

  #forgetOldest() {
    for (const entry of this.newest(null).slice(Denials.limit / 2)) this.entries.delete(entry.key);
  }
}

const layers = {
  dns: "name lookup",
  "tls-sni": "TLS server name",
  "http-host": "HTTP host",
  connect: "proxy request",
  ip: "address",
};

function destinationText({ host, ip, port, protocol }) {
  const place = host ? visibleHost(host) : ip?.includes(":") && port ? `[${ip}]` : (ip ?? "unknown destination");
  return place + (port ? `:${port}` : "") + (protocol && protocol !== "tcp" ? `/${protocol}` : "");
}

const ruleText = ({ index, action, target, source }) => `${source ?? "egress"}[${index}] ${action} ${target}`;

/** The list of denials. */
class Feed {
  static shown = 200;
  static interval = 250;

  #denials = new Denials();
  #reasons;
  #rows = new Map();
  #timer = null;
  #waiting = 0;
  #isPaused = false;
  #isPointedAt = false;
  #sandbox = null;
  #cursors = new Map();

  constructor(reasons) {
    this.#reasons = reasons;
    const list = find("feed");
    list.onpointerenter = (event) => this.#point(event.pointerType === "mouse");
    list.onpointerleave = () => this.#point(false);
    list.addEventListener("focusout", () => this.#schedule());
    find("hold").onclick = () => {
      this.#isPaused = !this.#isPaused;
      find("hold").setAttribute("aria-pressed", this.#isPaused);
      setText(find("hold"), this.#isPaused ? "Continue" : "Pause");
      this.#schedule();
    };
    find("older").onclick = () => this.load();
  }

  /** Shows the denials of one sandbox, or of all. */
  async scope(sandbox) {
    this.#sandbox = sandbox;
    setText(find("denials-title"), sandbox === null ? "Denials" : "Denials here");
    this.#render();
    if (!this.#cursors.has(sandbox)) await this.load();
    else this.#showOlder();
  }

  /** Gets the newest that are on record, or those before the ones it got. */
  async load() {
    const sandbox = this.#sandbox;
    const parameters = new URLSearchParams({ verdict: "refused", order: "newest", limit: 500 });
    if (sandbox !== null) parameters.set("sandbox", sandbox);
    const cursor = this.#cursors.get(sandbox);
    if (cursor) parameters.set("cursor", cursor);
    const page = await askJSON(`v1/audit?${parameters}`);
    this.#cursors.set(sandbox, page.nextCursor ?? null);
    for (const record of page.items) this.#denials.add(record);
    if (this.#sandbox === sandbox) {
      this.#render();
      this.#showOlder();
    }
  }

  #showOlder() {
    show(find("older"), Boolean(this.#cursors.get(this.#sandbox)));
  }

  /** Takes a record as it happens. */
  add(record) {
    if (!this.#denials.add(record)) return;
    if (this.#sandbox === null || record.sandbox === this.#sandbox) this.#waiting += record.count ?? 1;
    this.#schedule();
  }

  #point(isPointedAt) {
    this.#isPointedAt = isPointedAt;
    this.#schedule();
  }

  /** Whether rows must stay where they are: somebody is about to press one, or reads what one of them says. */
  get #isHeld() {
    const list = find("feed");
    return this.#isPaused || this.#isPointedAt || list.querySelector(":focus-visible") !== null
      || list.querySelector(".remedy:not([hidden]) .confirm") !== null;
  }

  #schedule() {
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      if (!this.#isHeld) this.#render();
      setText(find("held"), this.#isHeld && this.#waiting > 0 ? `${this.#waiting} new` : "");
    }, Feed.interval);
  }

  #render() {
    this.#waiting = 0;
    setText(find("held"), "");
    const list = find("feed");
    const entries = this.#denials.newest(this.#sandbox).slice(0, Feed.shown);
    const kept = new Set(entries.map((entry) => entry.key));
    for (const [key, row] of this.#rows) {
      if (kept.has(key)) continue;
      row.remove();
      this.#rows.delete(key);
    }
    entries.forEach((entry, position) => {
      const row = this.#rows.get(entry.key) ?? this.#makeRow(entry);
      this.#fill(row, entry);
      if (list.children[position] !== row) list.insertBefore(row, list.children[position] ?? null);
    });
    show(find("no-denials"), entries.length === 0);
  }

  #makeRow(entry) {
    const row = find("denial-template").content.firstElementChild.cloneNode(true);
    const { record } = entry;
    this.#rows.set(entry.key, row);
    row.querySelector(".destination").textContent = destinationText(record);
    const context = row.querySelector(".context");
    const link = element("a", "", visible(record.sandbox ?? ""));
    link.href = `#/sandboxes/${encodeURIComponent(record.sandbox ?? "")}`;
    const parts = [link, element("span", "", layers[record.layer] ?? visible(record.layer ?? ""))];
    if (record.host && record.ip && record.ip !== record.host) parts.push(element("span", "address", record.ip));
    context.append(...parts);
    const button = row.querySelector(".allow");
    button.setAttribute("aria-label", `Allow ${destinationText(record)} for ${visible(record.sandbox ?? "")}`);
    button.onclick = () => this.#offer(row, entry);
    return row;
  }

  #fill(row, entry) {
    const { record, count } = entry;
    const reason = this.#reasons[record.reason];
    const phrase = record.rule && record.reason === "rule" ? ruleText(record.rule) : (reason?.phrase ?? record.reason);
    setText(row.querySelector(".why"), `${record.report ? "Would be refused" : "Refused"}: ${visible(phrase)}`);
    const address = row.querySelector(".address");
    if (address && record.ip) setText(address, record.ip);
    const advice = reason?.advice ?? (record.rule?.source ? "The operator's rules stand before every policy." : null);
    setText(row.querySelector(".advice"), advice ? `${advice[0].toUpperCase()}${advice.slice(1)}`.replace(/\.?$/, ".") : "");
    show(row.querySelector(".advice"), advice !== null);
    const times = row.querySelector(".times");
    setText(times, `${count}\u00d7`);
    times.classList.toggle("many", count > 1);
    const time = row.querySelector("time");
    const date = new Date(record.ts);
    time.dateTime = record.ts;
    time.title = date.toString();
    setText(time, timeText(date));
    show(row.querySelector(".allow"), advice === null && entry.allowed === null && row.querySelector(".remedy").hidden);
  }

  /** The first click: the rule that would help, from the node. */
  async #offer(row, entry) {
    const { record } = entry;
    const panel = row.querySelector(".remedy");
    const button = row.querySelector(".allow");
    button.disabled = true;
    const close = () => {
      show(panel, false);
      panel.replaceChildren();
      button.disabled = false;
      this.#fill(row, entry);
      button.focus({ preventScroll: true });
      this.#schedule();
    };
    const say = (className, text) => {
      const dismiss = element("button", "", "Close");
      dismiss.type = "button";
      dismiss.onclick = close;
      panel.replaceChildren(element("p", className, text), element("div", "actions", dismiss));
      panel.firstChild.setAttribute("role", "status");
      show(panel, true);
      show(button, false);
    };
    try {
      const { sandbox, host, ip, port, protocol, layer, reason } = record;
      const question = { sandbox, host, ip, port, protocol, layer, reason };
      const suggestion = await askJSON("v1/policies/suggest", { method: "POST", body: question });
      if (suggestion.outcome === "allowed") return say("done", "The policy in force allows it already.");
      if (suggestion.outcome === "advice") return say("", `No rule helps: ${visible(suggestion.advice)}.`);
      this.#showRule(panel, entry, suggestion, say, close);
      show(button, false);
    } catch (problem) {
      say("problem", visible(problem.message));
    }
  }

  #showRule(panel, entry, suggestion, say, close) {
    const { record } = entry;
    const place = suggestion.refusal ? `before ${visible(suggestion.refusal)}` : "behind the other rules";
    const remark = suggestion.remark ? ` (${visible(suggestion.remark)})` : "";
    const confirm = element("button", "primary confirm", "Confirm");
    const cancel = element("button", "", "Cancel");
    confirm.type = cancel.type = "button";
    cancel.onclick = close;
    confirm.onclick = async () => {
      confirm.disabled = cancel.disabled = true;
      try {
        const changed = await askJSON(sandboxPath(record.sandbox, `/policy?before=${suggestion.before}`), {
          method: "PATCH",
          headers: { "If-Match": `"${suggestion.revision}"` },
          body: [suggestion.rule],
        });
        entry.allowed = changed.revision;
        say("done", `Allowed for ${visible(record.sandbox)}: revision ${changed.revision} is in force.`);
        refresh();
      } catch (problem) {
        const isStale = problem.status === 412;
        say("problem", isStale ? "The policy has changed meanwhile: press Allow again." : visible(problem.message));
      }
    };
    panel.replaceChildren(
      element("div", "", `This rule lets it pass, ${place}${remark}:`, element("pre", "rule", suggestion.line)),
      element("div", "actions", confirm, cancel),
      element("div", "", "On the node, this does the same:", element("pre", "command", suggestion.command)),
    );
    show(panel, true);
    confirm.focus({ preventScroll: true });
    panel.scrollIntoView({ block: "nearest" });
  }
}

// Questions

/**
 * What somebody is asked about. A sandbox chooses when it asks, and must not put a question under a pointer that is on its
 * way to another one: new ones come last, none moves while somebody points at the list, and after one has moved a click
 * means nothing for a moment.
 */
class QuestionList {
  static moment = 700;

  #rows = new Map();
  #open = [];
  #answers = [];
  #sandbox = null;
  #isPointedAt = false;
  #settling = null;
  #loading = null;

  constructor() {
    const list = find("asked");
    list.onpointerenter = (event) => { this.#isPointedAt = event.pointerType === "mouse"; };
    list.onpointerleave = () => {
      this.#isPointedAt = false;
      this.#render();
    };
    list.addEventListener("focusout", () => setTimeout(() => this.#render()));
    setInterval(() => this.#showTimes(), 1000);
  }

  /** Shows the questions of one sandbox, or of all. */
  scope(sandbox) {
    this.#sandbox = sandbox;
    this.#render();
  }

  /** Asks for what is open; where that is under way, once more when it is done. */
  async load() {
    if (this.#loading) {
      this.#loading.again = true;
      return;
    }
    const loading = { again: true };
    this.#loading = loading;
    try {
      while (loading.again) {
        loading.again = false;
        ({ items: this.#open, answers: this.#answers } = await askJSON("v1/questions"));
        this.#render();
      }
    } finally {
      this.#loading = null;
    }
  }

  #render() {
    const list = find("asked");
    const wanted = this.#open.filter((question) => this.#sandbox === null || question.sandbox === this.#sandbox);
    const open = new Map(wanted.map((question) => [JSON.stringify([question.sandbox, question.question, question.askedAt]), question]));
    for (const [key, entry] of this.#rows) {
      if (open.has(key)) continue;
      if (!entry.isOver) this.#end(entry, "Over: answered elsewhere, or nobody answered in time.");
      if (this.#isPointedAt || entry.row.contains(document.activeElement)) continue;
      entry.row.remove();
      this.#rows.delete(key);
      this.#settle();
    }
    for (const [key, question] of open) {
      const known = this.#rows.get(key);
      if (known) {
        known.question = question;
        continue;
      }
      const entry = this.#makeEntry(question);
      this.#rows.set(key, entry);
      list.append(entry.row);
      this.#settle();
    }
    show(find("questions"), this.#rows.size > 0);
    setText(find("question-count"), wanted.length > 0 ? `${wanted.length}` : "");
    this.#showTimes();
  }

  /** Something has appeared or moved: for a moment a click means nothing. */
  #settle() {
    clearTimeout(this.#settling);
    find("asked").classList.add("settling");
    this.#settling = setTimeout(() => {
      this.#settling = null;
      find("asked").classList.remove("settling");
    }, QuestionList.moment);
  }

  #showTimes() {
    const count = this.#open.length;
    const title = document.title.replace(/^\(\d+\) /, "");
    document.title = count > 0 ? `(${count}) ${title}` : title;
    for (const { row, question, isOver } of this.#rows.values()) {
      const waiting = question.waiters === 1 ? "" : `, ${question.waiters} wait`;
      setText(row.querySelector(".left"), isOver ? "" : `denied ${untilText(question.expiresAt)}${waiting}`);
    }
  }

  #makeEntry(question) {
    const row = find("question-template").content.firstElementChild.cloneNode(true);
    const entry = { row, question, isOver: false };
    const place = `${visibleHost(question.host)}:${question.ports.join(",")}`;
    row.querySelector(".destination").textContent = place;
    const link = element("a", "", visible(question.sandbox));
    link.href = `#/sandboxes/${encodeURIComponent(question.sandbox)}`;
    const metadata = sandboxes.find((sandbox) => sandbox.id === question.sandbox)?.metadata ?? {};
    row.querySelector(".context").append(link, element("span", "", `question ${question.question}`));
    if (question.command) row.querySelector(".context").append(element("span", "", visible(question.command)));
    if (metadataText(metadata)) row.querySelector(".context").append(element("span", "", metadataText(metadata)));
    for (const button of row.querySelectorAll("button")) {
      if (!this.#answers.includes(button.dataset.answer)) button.remove();
      button.setAttribute("aria-label", `${button.textContent}: ${place} for ${visible(question.sandbox)}`);
      button.onclick = () => this.#answer(entry, button);
    }
    return entry;
  }

  async #answer(entry, button) {
    if (entry.isOver || this.#settling !== null) return;
    const { question, row } = entry;
    const buttons = [...row.querySelectorAll("button")];
    for (const one of buttons) one.disabled = true;
    const { answer, ttl } = button.dataset;
    try {
      await ask(sandboxPath(question.sandbox, `/questions/${question.question}`), {
        method: "POST",
        // The next daemon numbers its questions anew.
        body: { answer, askedAt: question.askedAt, ...(ttl && { ttl }) },
      });
      this.#end(entry, answer === "deny" ? "Denied." : `Allowed: ${button.textContent.toLowerCase()}.`);
      row.querySelector(".outcome").focus({ preventScroll: true });
      refresh();
    } catch (problem) {
      for (const one of buttons) one.disabled = false;
      button.focus({ preventScroll: true });
      this.#say(entry, "outcome problem", visible(problem.message));
      this.load().catch(() => {});
    }
  }

  #end(entry, text) {
    entry.isOver = true;
    const hadFocus = entry.row.querySelector(".answers").contains(document.activeElement);
    show(entry.row.querySelector(".answers"), false);
    this.#say(entry, "outcome", text);
    if (hadFocus) entry.row.querySelector(".outcome").focus({ preventScroll: true });
  }

  #say(entry, className, text) {
    const outcome = entry.row.querySelector(".outcome");
    outcome.className = className;
    setText(outcome, text);
    show(outcome, true);
  }
}

/** Gives records that `filter` wants to `take` for ever: from now on, and after an interruption from the last one on. */
async function follow(filter, take) {
  let last = null;
  let patience = 1000;
  for (;;) {
    const breaker = new AbortController();
    let trouble = "no connection to the node";
    let watchdog = null;
    // The node says something every 15 seconds.
    const feedWatchdog = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => breaker.abort(), 40_000);
    };
    try {
      const headers = last === null ? {} : { "Last-Event-ID": String(last) };
      const answer = await ask(`v1/audit/stream?${filter}`, { headers, signal: breaker.signal });
      feedWatchdog();
      connection(filter, null);
      patience = 1000;
      let rest = "";
      const decoder = new TextDecoder();
      const reader = answer.body.getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        feedWatchdog();
        const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
        rest = lines.pop();
        for (const line of lines) {
          if (!line.startsWith("data: ")) continue;
          const record = JSON.parse(line.slice(6));
          last = record.seq;
          take(record);
        }
      }
    } catch (problem) {
      if (problem instanceof Refusal) trouble = visible(problem.message);
    }
    clearTimeout(watchdog);
    breaker.abort();
    connection(filter, trouble);
    await pause(patience);
    patience = Math.min(patience * 2, 15_000);
  }
}

const troubles = new Map();

/** Says whether the page is up to date: it is when nothing that it lives by has trouble. `trouble` is that of one of them, or null. */
function connection(source, trouble) {
  troubles.set(source, trouble);
  const first = [...troubles.values()].find((one) => one !== null);
  find("connection").dataset.state = first === undefined ? "live" : "lost";
  setText(find("connection"), first ?? "live");
}

// Sandboxes

const mostRows = 500;
let sandboxes = [];

const metadataText = (metadata) =>
  Object.entries(metadata).map(([key, value]) => `${visible(key)}: ${visible(value)}`).join(", ");

function policyText(policy) {
  const count = policy.egress.length;
  const words = [count === 1 ? "1 rule" : `${count} rules`];
  if (policy.setup) words.push(`${policy.setup.egress.length} in set-up`);
  if (policy.defaultAction === "allow") words.push("else allow");
  if (policy.mode === "report") words.push("report");
  return words.join(", ");
}

function stateBadge(node, state) {
  node.className = "state";
  node.dataset.state = state;
  setText(node, state);
}

async function loadSandboxes() {
  const found = [];
  let cursor = null;
  do {
    const page = await askJSON(`v1/sandboxes?limit=1000${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
    found.push(...page.items);
    cursor = page.nextCursor;
  } while (cursor);
  sandboxes = found;
}

const rows = new Map();

function showSandboxes() {
  const wanted = find("filter").value.trim().toLowerCase();
  const matching = sandboxes.filter((sandbox) =>
    [sandbox.id, sandbox.status.state, metadataText(sandbox.metadata)].some((text) => text.toLowerCase().includes(wanted)));
  const body = find("sandboxes").tBodies[0];
  const shown = matching.slice(0, mostRows);
  const kept = new Set(shown.map((sandbox) => sandbox.id));
  for (const [id, row] of rows) {
    if (kept.has(id)) continue;
    row.remove();
    rows.delete(id);
  }
  shown.forEach((sandbox, position) => {
    let row = rows.get(sandbox.id);
    if (!row) {
      row = element("tr", "", ...[0, 1, 2, 3].map(() => element("td")));
      row.dataset.id = sandbox.id;
      const link = element("a", "", visible(sandbox.id));
      link.href = `#/sandboxes/${encodeURIComponent(sandbox.id)}`;
      row.cells[0].append(link, element("span", "metadata", metadataText(sandbox.metadata)));
      row.cells[1].append(element("span", "state"));
      rows.set(sandbox.id, row);
    }
    stateBadge(row.cells[1].firstChild, sandbox.status.state);
    setText(row.cells[2], policyText(sandbox.policy));
    row.cells[2].title = `revision ${sandbox.revision}`;
    setText(row.cells[3], untilText(sandbox.expiresAt));
    row.cells[3].title = sandbox.expiresAt ?? "";
    if (body.children[position] !== row) body.insertBefore(row, body.children[position] ?? null);
  });
  const total = sandboxes.length;
  setText(find("sandbox-count"), wanted ? `${matching.length} of ${total}` : total > 0 ? `${total}` : "");
  const notice = find("no-sandboxes");
  if (total === 0) setText(notice, "There is none. sandgate attach puts a network namespace under a policy.");
  else if (matching.length === 0) setText(notice, "None matches.");
  else setText(notice, `${matching.length - shown.length} more: filter to see them.`);
  show(notice, shown.length < matching.length || matching.length === 0);
  show(find("sandboxes"), shown.length > 0);
}

// One sandbox

let current = null;

function portsText(rule) {
  const protocol = rule.protocol && rule.protocol !== "any" ? `/${rule.protocol}` : "";
  return rule.ports ? `${rule.ports.join(", ")}${protocol}` : protocol ? `all${protocol}` : "all";
}

function policyRow(place, rule) {
  const target = element("td", "", visible(rule.target));
  if (rule.comment) target.append(element("span", "comment", visible(rule.comment)));
  const row = element(
    "tr", "",
    element("td", "", place),
    element("td", rule.action === "allow" ? "is-allow" : "is-deny", rule.action),
    target,
    element("td", "", portsText(rule)),
    element("td", "", rule.expiresAt ? untilText(rule.expiresAt) : ""),
  );
  if (rule.expiresAt) row.cells[4].title = rule.expiresAt;
  row.classList.toggle("over", Boolean(rule.expiresAt) && new Date(rule.expiresAt) <= Date.now());
  return row;
}

/** A rule of the set-up phase: until the lock, or the end by time of whichever of the two ends first. */
function setupRow(index, rule, setup) {
  const ends = [setup.expiresAt, rule.expiresAt].filter(Boolean).sort((one, other) => new Date(one) - new Date(other));
  const row = policyRow(`setup ${index}`, { ...rule, expiresAt: ends[0] });
  row.cells[4].prepend("the lock, or ");
  return row;
}

function showPolicy(sandbox, always) {
  const { policy, revision } = sandbox;
  const words = [`revision ${revision}`, policy.mode === "report" ? "report mode: refuses nothing but guarded addresses" : "enforced"];
  setText(find("policy-summary"), words.join(", "));
  const all = element("td", "", "everything else");
  const last = element(
    "tr", "",
    element("td", "", "default"),
    element("td", policy.defaultAction === "allow" ? "is-allow" : "is-deny", policy.defaultAction),
    all, element("td"), element("td"),
  );
  find("policy").tBodies[0].replaceChildren(
    ...always.deny.map((rule, index) => policyRow(`deny.always ${index}`, rule)),
    ...always.allow.map((rule, index) => policyRow(`allow.always ${index}`, rule)),
    ...policy.egress.map((rule, index) => policyRow(String(index), rule)),
    ...(policy.setup?.egress ?? []).map((rule, index) => setupRow(index, rule, policy.setup)),
    // What was answered for always holds where somebody is asked.
    ...(sandbox.asks ? always.answers : []).map((rule, index) => policyRow(`answers ${index}`, rule)),
    last,
  );
}

function showFacts(sandbox, activity) {
  const { status } = sandbox;
  const time = (text) => (text ? new Date(text).toLocaleString() : "never");
  const facts = [
    ["Because", status.message ? visible(status.message) : null],
    ["State since", time(status.lastTransitionAt)],
    ["Created", time(sandbox.createdAt)],
    ["Expires", sandbox.expiresAt ? `${time(sandbox.expiresAt)} (${untilText(sandbox.expiresAt)})` : "never"],
    ["Locked", sandbox.lockedAt ? time(sandbox.lockedAt) : null],
    ["Live now", activity ? `${activity.connections} connections, ${activity.pins} pinned addresses` : null],
    ["Namespace", sandbox.networkNamespace ? visible(sandbox.networkNamespace) : null],
    ["Self-test", sandbox.selfTest],
    ["Accepted risks", sandbox.acceptedRisks.length > 0 ? sandbox.acceptedRisks.join(", ") : null],
    ["Metadata", metadataText(sandbox.metadata) || null],
  ].filter(([, value]) => value !== null);
  const list = find("facts");
  const old = [...list.querySelectorAll("dt")].map((node) => node.textContent);
  if (old.join() === facts.map(([name]) => name).join()) {
    list.querySelectorAll("dd").forEach((node, index) => setText(node, facts[index][1]));
  } else {
    list.replaceChildren(...facts.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
  }
}

async function loadDetail() {
  const id = current;
  if (id === null) return;
  try {
    const [sandbox, always, activity] = await Promise.all([
      askJSON(sandboxPath(id)),
      askJSON("v1/policies/always"),
      askJSON(sandboxPath(id, "/activity")),
    ]);
    if (current !== id) return;
    const { state } = sandbox.status;
    stateBadge(find("detail-state"), state);
    show(find("detail-state"), true);
    show(find("pause"), state === "Running");
    show(find("resume"), state === "Paused");
    show(find("lock"), Boolean(sandbox.policy.setup) && (state === "Running" || state === "Paused"));
    show(find("retry"), state === "Failed");
    show(find("release"), true);
    showFacts(sandbox, activity);
    showPolicy(sandbox, always);
  } catch (problem) {
    if (!(problem instanceof Refusal) || current !== id) throw problem;
    emptyDetail();
    complain(visible(problem.message));
  }
}

function emptyDetail() {
  const shown = ["detail-state", "pause", "resume", "lock", "retry", "release", "release-confirmation"];
  for (const name of shown) show(find(name), false);
  find("facts").replaceChildren();
  find("policy").tBodies[0].replaceChildren();
  setText(find("policy-summary"), "");
}

function complain(text) {
  setText(find("detail-problem"), text ?? "");
  show(find("detail-problem"), Boolean(text));
}

/** Does something to the sandbox that is shown; what comes then, unless it failed, is to show how it is now. */
async function act(button, method, rest, then = refresh) {
  button.disabled = true;
  complain(null);
  try {
    await ask(sandboxPath(current, rest), { method });
    then();
  } catch (problem) {
    complain(visible(problem.message));
  }
  button.disabled = false;
}

find("pause").onclick = () => act(find("pause"), "POST", "/pause");
find("resume").onclick = () => act(find("resume"), "POST", "/resume");
find("lock").onclick = () => act(find("lock"), "POST", "/lock");
find("retry").onclick = () => act(find("retry"), "POST", "/retry");
find("release").onclick = () => {
  show(find("release-confirmation"), true);
  find("release-cancel").focus();
};
find("release-cancel").onclick = () => {
  show(find("release-confirmation"), false);
  find("release").focus();
};
find("release-confirm").onclick = () => act(find("release-confirm"), "DELETE", "", () => { location.hash = "#/"; });
find("filter").oninput = showSandboxes;

// What is shown, and how often it is asked for

let feed = null;
const questions = new QuestionList();

async function route() {
  const place = /^#\/sandboxes\/(.+)$/.exec(location.hash);
  let id = null;
  try {
    id = place ? decodeURIComponent(place[1]) : null;
  } catch {
    // No name of a sandbox.
  }
  if (id !== current) {
    emptyDetail();
    complain(null);
    scrollTo(0, 0);
  }
  current = id;
  setText(find("detail-title"), id === null ? "" : visible(id));
  document.title = id === null ? "Sandgate" : `${visible(id)} \u2013 Sandgate`;
  show(find("overview"), id === null);
  show(find("detail"), id !== null);
  questions.scope(id);
  await Promise.all([refresh(), feed.scope(id)]);
}

async function refresh() {
  const rest = current === null ? loadSandboxes().then(showSandboxes) : loadDetail();
  try {
    await Promise.all([questions.load(), rest]);
    connection("answers", null);
  } catch (problem) {
    // The streams tell when the node is gone; a page that has something to show keeps it.
    if (problem instanceof Refusal) connection("answers", visible(problem.message));
  }
}

/** Every five seconds, and less often where the answer takes its time. */
async function keepFresh() {
  for (;;) {
    const begin = performance.now();
    if (!document.hidden) await refresh();
    await pause(Math.max(5000, 20 * (performance.now() - begin)));
  }
}

async function begin() {
  for (;;) {
    try {
      feed = new Feed(await askJSON("v1/audit/reasons"));
      break;
    } catch (problem) {
      connection("answers", problem instanceof Refusal ? visible(problem.message) : "no connection to the node");
      await pause(3000);
    }
  }
  follow("verdict=refused", (record) => feed.add(record));
  follow("event=question.*", () => questions.load().catch(() => {}));
  addEventListener("hashchange", route);
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  await route().catch(() => {});
  keepFresh();
}

begin();
