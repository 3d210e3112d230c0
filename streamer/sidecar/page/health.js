// How the agent is: its sources, its sinks with what waits for them, and what is missing in the stream.

import { ask, own } from "./api.js";
import { byId, el } from "./dom.js";
import { bytes, clock, count, duration, moment, shown } from "./format.js";

const TONES = { ok: "good", off: "plain", starting: "plain", degraded: "warn", down: "bad" };
const GAPS = 5;

export class Health {
  async update() {
    const [ready, stream] = await Promise.all([ask("readyz", [503]), own("stream")]);
    const sinks = new Map(stream.sinks.map((sink) => [`sink.${sink.sink}`, sink]));
    byId("components").replaceChildren(...ready.components.map((each) => componentItem(each, sinks.get(each.component))));
    byId("gaps").replaceChildren(...stream.gaps.slice(-GAPS).reverse().map(gapItem));
    byId("no-gaps").hidden = stream.gaps.length > 0;
    this.#tellTrouble(ready);
  }

  /** What does not work is said at the top, too. */
  #tellTrouble(ready) {
    const bad = ready.components.filter(({ state }) => state === "down" || state === "degraded");
    const trouble = byId("trouble");
    trouble.hidden = !bad.length && ready.ready;
    const said = bad.map(({ component, state, reason }) => `${component} is ${state}${reason ? `: ${reason}` : ""}`);
    trouble.textContent = shown((said.length ? said : ready.because).join(" · "));
    trouble.classList.toggle("bad", !ready.ready);
  }
}

function componentItem({ component, state = "starting", reason, remedy, since }, sink) {
  return el(
    "li", {}, el(`span.badge.${TONES[state] ?? "plain"}`, {}, shown(state)), " ", el("strong", {}, shown(component)),
    since ? el("span.sub", {}, ` since ${clock(moment(since))}`) : null,
    reason ? el("div", {}, shown(reason)) : null,
    remedy ? el("div.sub", {}, shown(remedy)) : null,
    sink ? el("div.sub", {}, lanes(sink)) : null,
  );
}

function lanes(sink) {
  const all = Object.entries(sink.lanes ?? {}).map(([lane, it]) => {
    const said = [
      `${count(it.delivered)} delivered`,
      it.backlog_messages ? `${count(it.backlog_messages)} waiting (${bytes(it.backlog_bytes)})` : "nothing waiting",
      it.lag_ms ? `${duration(it.lag_ms)} behind` : "",
      it.dropped ? `${count(it.dropped)} dropped` : "",
    ];
    return `${lane}: ${said.filter(Boolean).join(", ")}`;
  });
  return shown(all.join(" · "));
}

function gapItem(gap) {
  const many = gap.gap_count == null ? "an unknown number" : count(gap.gap_count);
  return el(
    "li", {}, el("time", { datetime: gap.time }, clock(gap.time_ms)), " ",
    el("strong", {}, shown(gap.gap_topic ?? gap.component ?? "")), ` ${many} missing`, el("div.sub", {}, shown(gap.reason ?? "")),
  );
}
