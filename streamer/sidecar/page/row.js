// One row of the list: made once, filled again and again with whatever has scrolled to its place.

import { el, setAttribute, setText } from "./dom.js";
import { bytes, bytesPerSecond, cores, count, duration, percent, shortId, shown, UNKNOWN } from "./format.js";
import { pressure, startedMs } from "./rows.js";
import { sparkline } from "./spark.js";
import { METRICS } from "./store.js";

const LEAST = { cpu: 0.1, memory: 8 << 20, io: 64 << 10, network: 64 << 10 };
const MUCH_PERCENT = 10;
const WAITED = { cpu: "CPU", memory: "memory", io: "I/O" };

/** Where a container's own view is. */
export const hashOf = (id) => `#c=${encodeURIComponent(id)}`;

export class Row {
  constructor(number) {
    this.title = el("bdi.title");
    this.link = el("a", { tabindex: "-1" }, this.title);
    this.badge = el("span.badge.bad");
    this.about = el("div.sub");
    this.metrics = Object.fromEntries(Object.keys(METRICS).map((metric) => [metric, new Metric(metric)]));
    this.pressure = el("div.value");
    this.waiting = el("div.sub");
    this.age = el("div.value");
    this.state = el("div.sub");
    this.head = el("div.cell.c-name", { role: "gridcell" }, el("div.names", {}, this.link, this.badge), this.about);
    this.node = el(
      "div.row", { role: "row", id: `row-${number}` }, this.head,
      ...Object.values(this.metrics).map((metric) => metric.node),
      el("div.cell.c-pressure", { role: "gridcell" }, this.pressure, this.waiting),
      el("div.cell.c-started", { role: "gridcell" }, this.age, this.state),
    );
  }

  fill(row) {
    this.key = row.key;
    this.node.classList.toggle("group", Boolean(row.members));
    if (row.members) this.#fillGroup(row);
    else this.#fillContainer(row.container);
  }

  #fillGroup({ group, members, isOpen }) {
    setText(this.title, `${isOpen ? "▾" : "▸"} ${shown(group)}`);
    setAttribute(this.link, "href", null);
    setAttribute(this.link, "title", null);
    setAttribute(this.head, "aria-expanded", isOpen);
    setText(this.about, `${count(members.length)} ${members.length === 1 ? "container" : "containers"}`);
    const kills = members.reduce((all, c) => all + (c.facts.oom_kills ?? 0), 0);
    this.#fillBadge(kills);
    for (const [metric, { of }] of Object.entries(METRICS)) {
      const known = members.map((c) => of(c.rates)).filter(Number.isFinite);
      const total = known.length ? known.reduce((all, value) => all + value, 0) : NaN;
      this.metrics[metric].fill(SHOW[metric](total), "together", NaN, []);
    }
    for (const node of [this.pressure, this.waiting, this.age, this.state]) setText(node, "");
    this.node.classList.remove("ended");
  }

  #fillContainer(c) {
    const { facts } = c;
    setText(this.title, shown(c.name));
    setAttribute(this.link, "href", hashOf(c.id));
    setAttribute(this.link, "title", this.title.textContent);
    setAttribute(this.head, "aria-expanded", null);
    const who = facts.runtime === "raw" ? ["raw cgroup"] : [facts.runtime, shortId(facts.container_id)];
    setText(this.about, [facts.image, ...who].filter(Boolean).map(shown).join(" · "));
    this.#fillBadge(facts.oom_kills ?? 0);
    this.#fillMetrics(c);
    this.#fillState(c);
  }

  #fillMetrics({ rates, history }) {
    const { cpu, memory, io, network } = this.metrics;
    const { cpu_limit_cores: mostCores, memory_limit_bytes: mostBytes, memory_working_set_bytes: held } = rates;
    const throttled = rates.cpu_throttled_ratio > 0 ? `${percent(rates.cpu_throttled_ratio * 100)} throttled` : "";
    const ofCores = mostCores ? `of ${Number(mostCores.toFixed(2))}` : "no limit";
    cpu.fill(cores(rates.cpu_cores), throttled || ofCores, rates.cpu_cores / mostCores, history.cpu, throttled !== "");
    memory.fill(bytes(held), mostBytes ? `of ${bytes(mostBytes)}` : "no limit", held / mostBytes, history.memory);
    const disk = both("reading", rates.io_read_bytes_per_second, "writing", rates.io_write_bytes_per_second);
    io.fill(bytesPerSecond(METRICS.io.of(rates)), disk, NaN, history.io);
    const wire = both("receiving", rates.network_rx_bytes_per_second, "sending", rates.network_tx_bytes_per_second);
    network.fill(bytesPerSecond(METRICS.network.of(rates)), wire, NaN, history.network);
  }

  #fillState(c) {
    const { facts, rates } = c;
    const most = pressure(rates);
    setText(this.pressure, percent(most.percent));
    this.pressure.classList.toggle("much", most.percent >= MUCH_PERCENT);
    setText(this.waiting, most.percent > 0 ? `for ${WAITED[most.what]}` : "");
    const started = startedMs(c);
    setText(this.age, c.endedMs ? "ended" : duration(Math.max(1000, Date.now() - started)));
    setText(this.state, c.endedMs ? exit(facts) : shown(facts.state ?? ""));
    this.node.classList.toggle("ended", Boolean(c.endedMs));
  }

  #fillBadge(kills) {
    setText(this.badge, kills ? `OOM ${count(kills)}` : "");
    this.badge.hidden = !kills;
  }
}

const SHOW = { cpu: cores, memory: bytes, io: bytesPerSecond, network: bytesPerSecond };

const exit = (facts) => (facts.exit_code == null ? "" : `exit code ${facts.exit_code}`);

/** What it does more of. */
function both(first, a, second, b) {
  if (!(a > 0) && !(b > 0)) return "idle";
  return (a ?? 0) >= (b ?? 0) ? first : second;
}

/** Sparkline, value, limit and, where there is a limit, a bar. */
class Metric {
  constructor(metric) {
    this.metric = metric;
    this.spark = sparkline(metric);
    this.value = el("div.value");
    this.sub = el("div.sub");
    this.used = el("i");
    this.bar = el("div.bar", { "aria-hidden": "true" }, this.used);
    this.node = el(`div.cell.c-${metric}`, { role: "gridcell" }, this.spark.node, el("div.numbers", {}, this.value, this.sub, this.bar));
  }

  fill(value, sub, share, points, isWarning = false) {
    setText(this.value, value);
    setText(this.sub, value === UNKNOWN ? "" : sub);
    this.sub.classList.toggle("much", isWarning);
    this.spark.draw(points, LEAST[this.metric]);
    this.bar.hidden = !Number.isFinite(share);
    if (this.bar.hidden) return;
    this.used.style.transform = `scaleX(${Math.min(1, share).toFixed(3)})`;
    this.used.className = share >= 0.95 ? "full" : share >= 0.8 ? "high" : "";
  }
}
