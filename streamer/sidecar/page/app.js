// The page: what is asked when, and where it goes. Nothing is asked, drawn or held open while nobody looks.

import { Away, connection, Denied, Events, reasonOf, useToken } from "./api.js";
import { byId, el, perFrame, setText } from "./dom.js";
import { bytes, clock, cores, coresOf, count, duration, shown } from "./format.js";
import { Health } from "./health.js";
import { List } from "./list.js";
import { One } from "./one.js";
import { GROUPS, SORTS } from "./rows.js";
import { POLL_MS, Store, WINDOW_MS } from "./store.js";
import { keepTheme } from "./theme.js";
import { Timeline } from "./timeline.js";

const HEALTH_EVERY = 3; // polls

const store = new Store();
const list = new List(store, tellView);
const timeline = new Timeline(store);
const health = new Health();
const one = new One(store);
const events = new Events("lifecycle,oom,control", "15m", (type, record, isResumed) => store.happened(type, record, isResumed));

// drawing

const draw = perFrame(() => {
  if (!one.id) list.update();
  tellTotals();
});
const drawEvents = perFrame(() => timeline.update());
store.addEventListener("change", draw);
store.addEventListener("event", drawEvents);

function tellTotals() {
  const running = [...store.containers.values()].filter((container) => !container.endedMs);
  setText(byId("total-running"), count(running.length));
  const total = (field) => store.outermost.reduce((all, { rates }) => all + (rates[field] ?? 0), 0);
  const capacity = (field) => store.hosts.reduce((all, host) => all + host[field], 0);
  const of = (value, most, show, showMost = show) => (most ? `${show(value)} of ${showMost(most)}` : show(value));
  setText(byId("total-cpu"), of(total("cpu_cores"), capacity("num_cores"), cores, coresOf));
  setText(byId("total-memory"), of(total("memory_working_set_bytes"), capacity("memory_capacity_bytes"), bytes));
  const kills = store.events.filter(({ kind, timeMs }) => kind === "oom" && timeMs > Date.now() - WINDOW_MS).length;
  setText(byId("total-oom"), count(kills));
  byId("total-oom").classList.toggle("bad", kills > 0);
  const [host] = store.hosts;
  if (!host) return;
  const name = store.hosts.length > 1 ? `${count(store.hosts.length)} hosts` : host.host;
  const about = [name, host.os, `Linux ${host.kernel_version}`, `cgroup ${host.cgroup_mode}`, `agent ${host.streamer_version}`];
  setText(byId("host"), shown(about.join(" · ")));
  document.title = `${shown(name)} – streamer`;
}

// asking

let polls = 0;
let timer = 0;
let isAsking = false;

async function poll() {
  clearTimeout(timer);
  if (document.hidden || isAsking) return;
  isAsking = true;
  try {
    if (!store.loaded) await store.load();
    await store.poll();
    await one.update();
    if (polls++ % HEALTH_EVERY === 0) await health.update();
    connection.works("answers");
  } catch (error) {
    if (!(error instanceof Away || error instanceof Denied)) connection.fails("answers", reasonOf(error));
  } finally {
    isAsking = false;
  }
  timeline.draw();
  if (!document.hidden) timer = setTimeout(poll, POLL_MS);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(timer);
    events.stop();
    return;
  }
  events.start();
  if (!store.loaded) poll();
  else store.load().catch(() => {}).finally(poll); // the sparklines of the time away
});

// the connection

function tellConnection() {
  const since = connection.lostSince;
  document.body.classList.toggle("is-lost", since > 0);
  setText(byId("connection-state"), since ? "connection lost" : store.loaded ? "live" : "connecting");
  byId("lost").hidden = !since;
  const text = `Connection lost since ${clock(since)}: ${shown(connection.reason)}. What is shown is from before; trying again.`;
  if (since) setText(byId("lost"), text);
  setText(byId("connection-time"), since ? `since ${clock(since)}, ${duration(Date.now() - since)}` : "");
}

connection.addEventListener("change", tellConnection);
store.addEventListener("change", tellConnection);
setInterval(() => connection.lostSince && tellConnection(), 1000);

connection.addEventListener("denied", ({ detail }) => {
  byId("access-wrong").hidden = !detail.wasGiven;
  byId("access").showModal();
});
byId("access").addEventListener("cancel", (event) => event.preventDefault()); // there is nothing to see without
byId("access-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(byId("access-token").value);
  byId("access-token").value = "";
  byId("access").close();
  poll();
});

// choosing

function fillSelect(id, options) {
  byId(id).append(...Object.entries(options).map(([value, { title }]) => el("option", { value }, title)));
}

function tellView() {
  byId("sort").value = list.view.sort;
}

byId("search").addEventListener("input", ({ target }) => {
  list.view.search = target.value;
  list.grid.scrollTop = 0;
  list.update();
});
byId("group").addEventListener("change", ({ target }) => {
  list.view.group = target.value;
  list.update();
});
byId("sort").addEventListener("change", ({ target }) => list.sortBy(target.value));
byId("clear").addEventListener("click", clearSearch);
byId("one-back").addEventListener("click", goBack);

function clearSearch() {
  byId("search").value = "";
  byId("search").dispatchEvent(new Event("input"));
}

function goBack() {
  history.pushState(null, "", location.pathname + location.search);
  followHash();
}

for (const button of byId("panels").children) button.addEventListener("click", () => showPanel(button.dataset.panel));

function showPanel(panel) {
  document.body.dataset.panel = panel;
  for (const each of byId("panels").children) each.setAttribute("aria-pressed", each.dataset.panel === panel);
}

/** `#c=…` is a container's own view. */
function followHash() {
  const wanted = /^#c=(.+)$/.exec(location.hash);
  const before = one.id;
  one.show(wanted ? decoded(wanted[1]) : "");
  if (one.id) {
    showPanel("containers");
    one.update().catch(() => {}); // the next poll says why
  } else if (before) {
    list.update();
    list.focus();
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

addEventListener("hashchange", followHash);
addEventListener("popstate", followHash);

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || byId("access").open) return;
  const isTyping = event.target.matches("input, select, textarea");
  if (event.key === "/" && !isTyping) {
    if (one.id) goBack();
    showPanel("containers");
    byId("search").focus();
    event.preventDefault();
  } else if (event.key === "Escape") {
    if (one.id) goBack();
    else if (byId("search").value) clearSearch();
    else list.focus();
  } else if (event.target === byId("search") && (event.key === "ArrowDown" || event.key === "Enter")) {
    list.focus();
    list.grid.dispatchEvent(new KeyboardEvent("keydown", { key: "Home" }));
    event.preventDefault();
  } else if (event.target === document.body && event.key.startsWith("Arrow")) {
    list.focus();
  }
});

// the beginning

keepTheme(byId("theme"));
fillSelect("group", GROUPS);
fillSelect("sort", SORTS);
list.sortBy("cpu");
tellView();
followHash();
if (!document.hidden) {
  events.start();
  poll();
}
