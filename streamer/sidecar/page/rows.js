// Which rows are shown, in which order. Pure.

import { METRICS } from "./store.js";

const byMetric = (metric) => (c) => METRICS[metric].of(c.rates) || 0;

/** The ways to sort: title, value, and whether the largest comes first. */
export const SORTS = {
  name: { title: "Name", of: (c) => c.name, descending: false },
  cpu: { title: "CPU", of: (c) => Math.round(byMetric("cpu")(c) * 100), descending: true }, // noise moves no rows
  memory: { title: "Memory", of: byMetric("memory"), descending: true },
  io: { title: "I/O", of: byMetric("io"), descending: true },
  network: { title: "Network", of: byMetric("network"), descending: true },
  pressure: { title: "Pressure", of: (c) => pressure(c.rates).percent || 0, descending: true },
  started: { title: "Age", of: (c) => -startedMs(c) || 0, descending: false },
  oom: { title: "OOM kills", of: (c) => c.facts.oom_kills ?? 0, descending: true },
};

/** The ways to group: title, and to which group a container belongs. */
export const GROUPS = {
  none: { title: "No groups", of: () => "" },
  image: { title: "Image", of: (c) => c.facts.image || "no image" },
  project: { title: "Compose project", of: (c) => c.facts.compose_project || "no project" },
  pod: { title: "Pod", of: (c) => (c.facts.pod ? [c.facts.namespace, c.facts.pod].filter(Boolean).join("/") : "no pod") },
  runtime: { title: "Runtime", of: (c) => c.facts.runtime || "unknown" },
};

/** When this run of a container began, ms since 1970; NaN when not known. */
export function startedMs({ facts }) {
  return Date.parse(facts.started_at ?? facts.since ?? facts.created_at ?? "");
}

/** The resource that a container waited for most in the last 10 s. */
export function pressure(rates) {
  const all = ["cpu", "memory", "io"].map((what) => ({ what, percent: rates[`psi_${what}_some_percent`] }));
  const known = all.filter(({ percent }) => percent != null);
  return known.reduce((most, each) => (each.percent > most.percent ? each : most), known[0] ?? { what: "", percent: NaN });
}

const collator = new Intl.Collator("en", { numeric: true });

function compare(sort, descending) {
  const { of } = SORTS[sort];
  const sign = descending ? -1 : 1;
  return (a, b) => {
    const [x, y] = [of(a), of(b)];
    const order = typeof x === "string" ? collator.compare(x, y) : (Number.isNaN(x) ? -Infinity : x) - (Number.isNaN(y) ? -Infinity : y);
    return sign * (order || 0) || collator.compare(a.name, b.name) || (a.id < b.id ? -1 : 1);
  };
}

/**
 * Rows, and how many containers pass.
 * `view`: { search, sort, descending, group, closed: Set of groups that are folded }.
 * A row is { key, container } or { key, group, members, isOpen }.
 */
export function rowsOf(containers, view) {
  const words = view.search.toLowerCase().split(/\s+/).filter(Boolean);
  const passing = [...containers].filter((c) => words.every((word) => c.words.includes(word)));
  passing.sort(compare(view.sort, view.descending));
  if (view.group === "none") return { rows: passing.map(rowOf), passing: passing.length };
  const groups = new Map();
  for (const container of passing) {
    const name = GROUPS[view.group].of(container);
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(container);
  }
  const rows = [];
  for (const [group, members] of [...groups].sort(([a], [b]) => collator.compare(a, b))) {
    const key = `group ${group}`;
    const isOpen = !view.closed.has(key);
    rows.push({ key, group, members, isOpen });
    if (isOpen) rows.push(...members.map(rowOf));
  }
  return { rows, passing: passing.length };
}

const rowOf = (container) => ({ key: container.id, container });
