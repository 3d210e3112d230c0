// What happened: a strip of the last quarter of an hour, and the newest events as a list.

import { byId, el, setAttribute, setText, svg } from "./dom.js";
import { bytes, clock, count, duration, shown } from "./format.js";
import { hashOf } from "./row.js";
import { WINDOW_MS } from "./store.js";

const SHOWN = 200;
const BINS = 90;
const WIDTH = 360;
const HALF = 24;

/** Kinds of events: which badge, and in which line of the strip. */
const KINDS = {
  created: { text: "created", tone: "good", strip: "created" },
  deleted: { text: "ended", tone: "plain", strip: "deleted" },
  oom: { text: "OOM kill", tone: "bad", strip: "oom" },
  gap: { text: "gap", tone: "warn" },
  unheard: { text: "not heard", tone: "warn" },
  degraded: { text: "degraded", tone: "warn" },
  recovered: { text: "recovered", tone: "good" },
  started: { text: "agent started", tone: "plain" },
  stopped: { text: "agent stopped", tone: "plain" },
};

export class Timeline {
  #told = null; // the newest event in the list

  constructor(store) {
    this.store = store;
    this.list = byId("events");
    this.bars = Object.fromEntries(["created", "deleted", "oom"].map((kind) => [kind, svg(`path.${kind}`)]));
    this.strip = svg(
      "svg", { viewBox: `0 0 ${WIDTH} ${2 * HALF}`, role: "img", "aria-label": "The last 15 minutes", preserveAspectRatio: "none" },
      svg("line.axis", { x1: 0, x2: WIDTH, y1: HALF, y2: HALF }), ...Object.values(this.bars),
    );
    byId("strip").append(this.strip);
  }

  /** Tell what is new. */
  update() {
    const { events } = this.store;
    const start = this.#told ? events.lastIndexOf(this.#told) + 1 : 0;
    const news = events.slice(Math.max(start, events.length - SHOWN));
    if (news.length) {
      this.#told = news.at(-1);
      this.list.prepend(...news.map(item).reverse());
      while (this.list.childElementCount > SHOWN) this.list.lastElementChild.remove();
    }
    byId("no-events").hidden = events.length > 0;
    this.draw();
  }

  /** The strip, as time goes on. */
  draw() {
    const now = Date.now();
    const bins = Object.fromEntries(Object.keys(this.bars).map((kind) => [kind, new Uint32Array(BINS)]));
    const totals = { created: 0, deleted: 0, oom: 0 };
    for (const { kind, timeMs } of this.store.events) {
      const strip = KINDS[kind]?.strip;
      const age = now - timeMs;
      if (!strip || age > WINDOW_MS) continue;
      totals[strip]++;
      bins[strip][Math.min(BINS - 1, Math.max(0, Math.floor((1 - age / WINDOW_MS) * BINS)))]++;
    }
    const highest = Math.max(1, ...bins.created, ...bins.deleted);
    for (const [kind, path] of Object.entries(this.bars)) setAttribute(path, "d", bars(kind, bins[kind], highest));
    const kills = `${count(totals.oom)} OOM ${totals.oom === 1 ? "kill" : "kills"}`;
    const text = `${count(totals.created)} created, ${count(totals.deleted)} ended, ${kills}`;
    setAttribute(this.strip, "aria-label", `The last 15 minutes: ${text}`);
    setText(byId("strip-text"), `Last 15 min: ${text}`);
  }
}

/** Created upwards, ended downwards, kills over the whole height. */
function bars(kind, bins, highest) {
  const wide = WIDTH / BINS;
  let d = "";
  bins.forEach((n, bin) => {
    if (!n) return;
    const tall = kind === "oom" ? HALF : Math.max(3, Math.sqrt(n / highest) * (HALF - 1));
    const [top, bottom] = { created: [HALF - tall, HALF], deleted: [HALF, HALF + tall], oom: [0, 2 * HALF] }[kind];
    d += `M${(bin * wide).toFixed(1)} ${top.toFixed(1)}h${(wide - 1).toFixed(1)}V${bottom.toFixed(1)}h-${(wide - 1).toFixed(1)}Z`;
  });
  return d;
}

/** One event as an item of a list. */
export function item(event, withName = true) {
  const { text, tone } = KINDS[event.kind] ?? { text: event.kind, tone: "plain" };
  const name = el("bdi", {}, shown(event.name));
  const link = withName && event.name ? (event.id ? el("a", { href: hashOf(event.id) }, name) : name) : null;
  return el(
    "li", {}, el("time", { datetime: new Date(event.timeMs).toISOString() }, clock(event.timeMs)), " ",
    el(`span.badge.${tone}`, {}, shown(text)), " ", link, el("div.sub", {}, about(event)),
  );
}

function about({ kind, record }) {
  const parts = [];
  if (kind === "oom") {
    if (record.process) parts.push(`${shown(record.process)} (pid ${record.pid})`);
    if (record.anon_rss_bytes != null) parts.push(`held ${bytes(record.anon_rss_bytes)}`);
    if (record.memory_limit_bytes) parts.push(`limit ${bytes(record.memory_limit_bytes)}`);
    else if (record.constraint === "global") parts.push("the host was short of memory");
  } else if (kind === "deleted") {
    if (record.exit_code != null) parts.push(`exit code ${record.exit_code}`);
    if (record.oom_killed) parts.push("OOM killed");
    if (record.lifetime_ms != null) parts.push(`lived ${duration(record.lifetime_ms)}`);
    if (record.total_cpu_usage_ns != null) parts.push(`CPU ${duration(record.total_cpu_usage_ns / 1e6)}`);
    if (record.memory_peak_bytes != null) parts.push(`peak ${bytes(record.memory_peak_bytes)}`);
  } else if (kind === "created") {
    if (record.image) parts.push(shown(record.image));
    if (record.found === "reconciled") parts.push("while the agent was down");
  } else {
    if (record.gap_topic) parts.push(shown(record.gap_topic));
    if (record.gap_count != null) parts.push(`${count(record.gap_count)} missing`);
    if (record.reason) parts.push(shown(record.reason));
    if (record.version) parts.push(`version ${shown(record.version)}`);
  }
  return parts.join(" · ");
}
