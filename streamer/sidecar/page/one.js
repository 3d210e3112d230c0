// A container's own view: its samples as charts, what they were over minute, hour and day, its events, labels and limits.

import { own, Refused } from "./api.js";
import { Chart } from "./chart.js";
import { byId, el, setText } from "./dom.js";
import { bytes, bytesPerSecond, clock, cores, coresOf, count, duration, moment, percent, shown, UNKNOWN } from "./format.js";
import { startedMs } from "./rows.js";
import { item } from "./timeline.js";

const SAMPLES = 600;
const NEW_SAMPLES = 10; // asked for again and again: what came since

const CHARTS = [
  {
    title: "CPU", show: cores, least: 0.1, limit: (c) => c.rates?.cpu_limit_cores,
    lines: [line("used", "cpu", "cpu_cores"), line("held back", "throttled", "throttled_cores")],
  },
  {
    title: "Memory", show: bytes, least: 8 << 20, limit: (c) => c.spec?.memory_limit_bytes || NaN,
    lines: [line("working set", "memory", "memory_working_set_bytes"), line("with page cache", "cache", "memory_usage_bytes")],
  },
  {
    title: "Block I/O", show: bytesPerSecond, least: 64 << 10,
    lines: [line("read", "io", "read"), line("written", "io2", "written")],
  },
  {
    title: "Network", show: bytesPerSecond, least: 64 << 10,
    lines: [line("received", "network", "received"), line("sent", "network2", "sent")],
  },
  {
    title: "Pressure: waited in the last 10 s for", show: percent, least: 10,
    lines: [
      line("CPU", "cpu", "psi_cpu_some_avg10_percent"),
      line("memory", "memory", "psi_memory_some_avg10_percent"),
      line("I/O", "io", "psi_io_some_avg10_percent"),
    ],
  },
  { title: "Threads", show: count, least: 5, limit: (c) => c.spec?.pids_limit || NaN, lines: [line("threads", "plain", "threads")] },
];

function line(title, style, field) {
  return { title, style, of: (sample) => sample[field] ?? NaN };
}

/** Counters that become rates: new field, counter, and its unit's size. */
const RATES = [
  ["cpu_cores", "cpu_usage_ns", 1e9],
  ["throttled_cores", "cpu_throttled_ns", 1e9],
  ["read", "io_read_bytes", 1],
  ["written", "io_write_bytes", 1],
  ["received", "network_rx_bytes", 1],
  ["sent", "network_tx_bytes", 1],
];

export class One {
  #id = "";
  #samples = [];
  #charts = [];

  constructor(store) {
    this.store = store;
  }

  get id() {
    return this.#id;
  }

  /** Show this container; "" for none. */
  show(id) {
    if (id === this.#id) return;
    this.#id = id;
    this.#samples = [];
    byId("one").hidden = !id;
    byId("list").hidden = Boolean(id);
    if (!id) return;
    const known = this.store.containers.get(id);
    setText(byId("one-name"), known ? shown(known.name) : "…");
    setText(byId("one-about"), "");
    this.#charts = CHARTS.map((chart) => new Chart(chart));
    byId("charts").replaceChildren(...this.#charts.map(({ node }) => node));
    for (const name of ["one-facts", "one-limits", "one-labels", "one-events", "derived"]) byId(name).replaceChildren();
    for (const { node } of this.#charts) node.hidden = true;
    byId("one-back").focus();
  }

  /** Ask for what is new. Throws what asking throws, but for a container that is no longer known. */
  async update() {
    const id = this.#id;
    if (!id) return;
    let about;
    try {
      about = await own(`containers/${encodeURIComponent(id)}`, { samples: this.#samples.length ? NEW_SAMPLES : SAMPLES });
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (id === this.#id) setText(byId("one-about"), shown(error.message));
      return;
    }
    if (id !== this.#id) return;
    this.#remember(about.recent_samples ?? []);
    this.#tellFacts(about);
    if (this.#samples.length) this.#charts.forEach((chart, place) => chart.draw(this.#samples, CHARTS[place].limit?.(about) ?? NaN));
    byId("derived").replaceChildren(...derivedRows(about.derived));
    this.#tellEvents(about.events ?? []);
  }

  #remember(samples) {
    const newest = this.#samples.at(-1)?.time_ms ?? 0;
    const news = samples.filter((sample) => sample.time_ms > newest);
    let before = this.#samples.at(-1);
    for (const sample of news) {
      const seconds = before ? (sample.time_ms - before.time_ms) / 1000 : NaN;
      for (const [field, counter, unit] of RATES) sample[field] = Math.max(0, (sample[counter] - before?.[counter]) / unit / seconds);
      before = sample;
    }
    this.#samples = [...this.#samples, ...news].slice(-SAMPLES);
  }

  #tellFacts(c) {
    const spec = c.spec ?? {};
    setText(byId("one-name"), shown(c.name ?? c.container_id));
    const state = c.deleted || c.deleted_at ? `ended${c.exit_code == null ? "" : ` with exit code ${c.exit_code}`}` : c.state;
    const kills = c.oom_kills ? `${count(c.oom_kills)} OOM ${c.oom_kills === 1 ? "kill" : "kills"}` : "";
    setText(byId("one-about"), [c.image, state, kills].filter(Boolean).map(shown).join(" · "));
    const started = startedMs({ facts: c });
    pairs("one-facts", {
      Id: c.container_id,
      Incarnation: c.incarnation,
      Runtime: c.runtime,
      "Other names": (c.aliases ?? []).filter((alias) => alias !== c.name).join(", "),
      Image: c.image,
      "Compose project": [c.compose_project, c.compose_service].filter(Boolean).join(" / "),
      Pod: [c.namespace, c.pod].filter(Boolean).join(" / "),
      Cgroup: c.cgroup_path,
      "First process": c.pid,
      Started: Number.isFinite(started) ? `${clock(started)}, ${duration(Date.now() - started)} ago` : "",
      Restarts: c.restart_count,
      "Last OOM kill": c.last_oom_at ? clock(moment(c.last_oom_at)) : "",
      Host: c.host,
    });
    const { cpu_quota_us: quota, cpu_period_us: period } = spec;
    pairs("one-limits", {
      CPU: quota ? `${coresOf(quota / period)}, in periods of ${count(period)} µs` : "no limit",
      "CPU shares": spec.cpu_shares,
      CPUs: spec.cpuset_cpus,
      Memory: limit(spec.memory_limit_bytes),
      "Memory and swap": limit(spec.memory_swap_limit_bytes),
      "Memory reservation": spec.memory_reservation_bytes ? bytes(spec.memory_reservation_bytes) : "",
      Threads: spec.pids_limit ? count(spec.pids_limit) : "no limit",
    });
    pairs("one-labels", c.labels ?? {}, { isWhole: true });
    byId("no-labels").hidden = Object.keys(c.labels ?? {}).length > 0;
  }

  #tellEvents(records) {
    const events = records.map((record) => ({ kind: record.event ?? "oom", timeMs: record.time_ms, name: "", record }));
    byId("one-events").replaceChildren(...events.reverse().map((event) => item(event, false)));
  }
}

const limit = (n) => (n == null ? "" : n ? bytes(n) : "no limit");

/** `isWhole`: also what is empty, which a label may be; of a fact it means that it is not known. */
function pairs(id, values, { isWhole = false } = {}) {
  const told = Object.entries(values).filter(([, value]) => isWhole || (value != null && value !== ""));
  byId(id).replaceChildren(...told.flatMap(([key, value]) => [el("dt", {}, written(key)), el("dd", {}, written(value))]));
}

const written = (value) => (value === "" ? el("span.sub", {}, "(empty)") : el("bdi", {}, shown(value)));

const USAGES = [["CPU", "cpu_millicores", (millicores) => cores(millicores / 1000)], ["Memory", "memory_bytes", bytes]];
const COLUMNS = ["mean", "fifty", "ninety", "ninetyfive", "max"];

function derivedRows(derived) {
  return ["minute", "hour", "day"].flatMap((span) =>
    USAGES.map(([title, field, show]) => {
      const usage = derived?.[span]?.[field];
      const values = COLUMNS.map((column) => el("td", {}, usage?.present ? show(usage[column]) : UNKNOWN));
      const head = el("th", { scope: "row" }, `${title}, last ${span}`);
      return el("tr", {}, head, ...values, el("td", {}, percent(derived?.[span]?.percent_complete)));
    }),
  );
}
