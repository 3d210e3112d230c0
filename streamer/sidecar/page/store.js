// What is known: containers by incarnation with their rates, and what happened. Fed by the list, by rates and by events.

import { own } from "./api.js";

export const POINTS = 60; // of a sparkline: two minutes
export const POLL_MS = 2000;
export const WINDOW_MS = 15 * 60_000; // of the time line
const LINGER_MS = 8000; // how long what has ended is still shown: jobs of a second can be seen
const PAGE = 200; // containers in one answer: parsed in a few milliseconds
const MOST_EVENTS = 5000;

/** Metrics that have a sparkline: what a container's rates say of them, and the column of /series. */
export const METRICS = {
  cpu: { of: (r) => r.cpu_cores, series: "cpu_cores" },
  memory: { of: (r) => r.memory_working_set_bytes, series: "memory_working_set_bytes" },
  io: { of: (r) => sum(r.io_read_bytes_per_second, r.io_write_bytes_per_second), series: "io_bytes_per_second" },
  network: { of: (r) => sum(r.network_rx_bytes_per_second, r.network_tx_bytes_per_second), series: "network_bytes_per_second" },
};

const sum = (a, b) => (a == null && b == null ? NaN : (a ?? 0) + (b ?? 0));

const SEARCHED = ["container_id", "image", "compose_project", "compose_service", "pod", "namespace", "cgroup_path", "runtime"];
const ABOUT_THE_SAYING = ["event", "type", "schema", "id", "epoch", "seq", "time", "time_ms", "observed_time_ms"];

class Container {
  rates = {};
  history = Object.fromEntries(Object.keys(METRICS).map((metric) => [metric, []]));
  endedMs = 0;

  constructor(id) {
    this.id = id;
    this.facts = { incarnation: id };
    this.#name();
  }

  learn(facts) {
    Object.assign(this.facts, facts);
    this.#name();
  }

  #name() {
    const { facts } = this;
    this.name = facts.name || facts.container_id || this.id;
    const labels = Object.entries(facts.labels ?? {}).map(([key, value]) => `${key}=${value}`);
    const words = [this.name, ...SEARCHED.map((field) => facts[field]), ...(facts.aliases ?? []), ...labels];
    this.words = words.join("\n").toLowerCase();
  }

  take(rates) {
    this.rates = rates ?? {};
    for (const [metric, { of }] of Object.entries(METRICS)) {
      const points = this.history[metric];
      points.push(rates ? (of(rates) ?? NaN) : NaN);
      if (points.length > POINTS) points.shift();
    }
  }
}

/** Listeners: "change" (rows may be other ones), "event" (something happened). */
export class Store extends EventTarget {
  containers = new Map();
  events = []; // the oldest first: { kind, timeMs, id, name, record }
  hosts = [];
  loaded = false;
  #gone = new Set();
  #told = new Set();
  #loading = null;
  #outermost = null;

  /** Everything anew; once at a time. */
  load() {
    this.#loading ??= this.#load().finally(() => (this.#loading = null));
    return this.#loading;
  }

  async #load() {
    const present = new Set();
    this.hosts = (await own("hosts")).hosts;
    let after;
    do {
      const page = await own("containers", { limit: PAGE, after });
      for (const { last_sample: _, rates, ...facts } of page.containers) {
        if (this.#gone.has(facts.incarnation)) continue; // ended while we asked
        present.add(facts.incarnation);
        const container = this.#container(facts.incarnation);
        container.learn(facts);
        if (rates) container.rates = rates;
      }
      after = page.next;
      this.#changed();
    } while (after);
    for (const [id, container] of this.containers) {
      if (!present.has(id) && !container.isNew && !container.endedMs) this.containers.delete(id);
      container.isNew = false;
    }
    await this.#loadHistory();
    this.loaded = true;
    this.#changed();
  }

  async #loadHistory() {
    const series = await own("series", { since_ms: Date.now() - POINTS * POLL_MS, points: POINTS });
    for (const each of series.containers) {
      const container = this.containers.get(each.id);
      if (!container) continue;
      for (const [metric, { series: column }] of Object.entries(METRICS)) {
        container.history[metric] = (each[column] ?? []).slice(-POINTS).map((value) => value ?? NaN);
      }
    }
  }

  /** The newest rates of all. */
  async poll() {
    const { containers } = await own("rates");
    let unknown = false;
    const seen = new Set();
    for (const rates of containers) {
      const container = this.containers.get(rates.id);
      seen.add(rates.id);
      if (container) container.take(rates);
      else unknown ||= !this.#gone.has(rates.id);
    }
    for (const [id, container] of this.containers) if (!seen.has(id)) container.take(null);
    this.#changed();
    if (unknown) await this.load(); // an event was missed
  }

  /** One event of the stream. */
  happened(type, record, isResumed) {
    if (type === "gap") this.#gap(record, isResumed);
    if (!record.id || this.#told.has(record.id)) return; // after a gap everything is told again
    this.#told.add(record.id);
    shorten(this.#told);
    if (type === "container.lifecycle") this.#lifecycle(record);
    else if (type === "container.oom") this.#oom(record);
    else if (type === "control") this.#control(record);
  }

  /** Of our own listening. At the beginning there is always one, unless the agent has run for long. */
  #gap({ reason }, isResumed) {
    if (!isResumed) return;
    this.#note("unheard", Date.now(), { reason: UNHEARD[reason] ?? reason });
    this.load().catch(() => {}); // polling says that the connection is lost
  }

  #lifecycle(record) {
    const { event, incarnation: id, time_ms: timeMs } = record;
    const facts = Object.fromEntries(Object.entries(record).filter(([field]) => !ABOUT_THE_SAYING.includes(field)));
    if (event === "deleted") {
      this.#end(id, facts, timeMs);
    } else if (!this.#gone.has(id)) {
      const container = this.#container(id);
      container.learn(facts);
      this.#changed();
    }
    if (event !== "updated" && !(event === "created" && record.found === "startup")) this.#note(event, timeMs, record);
  }

  #end(id, facts, timeMs) {
    this.#gone.add(id);
    shorten(this.#gone);
    const container = this.containers.get(id);
    if (!container) return;
    container.learn(facts);
    container.endedMs = timeMs;
    const left = LINGER_MS - (Date.now() - timeMs);
    if (left <= 0) this.#forget(id);
    else setTimeout(() => this.#forget(id), Math.min(left, LINGER_MS));
    this.#changed();
  }

  #forget(id) {
    this.containers.delete(id);
    this.#changed();
  }

  #oom(record) {
    const container = this.containers.get(record.incarnation);
    if (container && record.time > (container.facts.last_oom_at ?? "")) { // otherwise the list has counted it
      container.learn({ oom_kills: (container.facts.oom_kills ?? 0) + 1, last_oom_at: record.time });
      this.#changed();
    }
    this.#note("oom", record.time_ms, record);
  }

  #control(record) {
    if (record.kind !== "heartbeat") this.#note(record.kind, record.time_ms, record);
  }

  #note(kind, timeMs, record) {
    this.events.push({ kind, timeMs, id: record.incarnation, name: record.name ?? record.container_id ?? record.component ?? "", record });
    if (this.events.length > MOST_EVENTS) this.events.splice(0, MOST_EVENTS / 10);
    this.dispatchEvent(new Event("event"));
  }

  #container(id) {
    let container = this.containers.get(id);
    if (!container) {
      container = new Container(id);
      container.isNew = true; // than the list that is being fetched
      this.containers.set(id, container);
    }
    return container;
  }

  #changed() {
    this.#outermost = null;
    this.dispatchEvent(new Event("change"));
  }

  /** Containers that no other one contains: their sum counts nothing twice. */
  get outermost() {
    if (!this.#outermost) {
      const running = [...this.containers.values()].filter((container) => !container.endedMs);
      const paths = new Set(running.map(place));
      this.#outermost = running.filter((container) => !ancestors(place(container)).some((path) => paths.has(path)));
    }
    return this.#outermost;
  }
}

const UNHEARD = {
  other_run: "the agent was started anew; what happened before may not be here",
  forgotten: "more happened while nobody listened than the agent remembers",
};

function shorten(set) {
  if (set.size > 2 * MOST_EVENTS) set.delete(set.values().next().value);
}

const place = ({ facts }) => `${facts.host_id ?? ""}:${facts.cgroup_path ?? ""}`;

function ancestors(path) {
  const found = [];
  for (let at = path.lastIndexOf("/"); at > 0; at = path.lastIndexOf("/", at - 1)) found.push(path.slice(0, at));
  return found.concat(path.endsWith(":/") ? [] : [`${path.slice(0, path.indexOf("/"))}/`]);
}
