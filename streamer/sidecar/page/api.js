// Asking the agent: JSON, and the stream of events. Everything is relative to the page: it works behind a proxy's prefix, too.

const TOKEN = "streamer.token";
const OWN = "api/streamer/v1/";
const HERE = location.origin + location.pathname.replace(/[^/]*$/, ""); // without a password that may stand in the address
const SILENT_MS = 40_000; // a heartbeat comes every 15 s
const ANSWER_MS = 10_000;
const PAUSES_MS = [250, 500, 1000, 2000, 4000];

/** Whether we hear the agent. `parts`: what fails, since when. Listeners: "change", "denied". */
export const connection = new (class extends EventTarget {
  failing = new Map();

  get lostSince() {
    return this.failing.size ? Math.min(...[...this.failing.values()].map((each) => each.since)) : 0;
  }

  get reason() {
    return [...this.failing.values()][0]?.reason ?? "";
  }

  works(part) {
    if (this.failing.delete(part)) this.dispatchEvent(new Event("change"));
  }

  fails(part, reason) {
    const since = this.failing.get(part)?.since ?? Date.now();
    this.failing.set(part, { since, reason });
    this.dispatchEvent(new Event("change"));
  }
})();

export class Away extends Error {} // nobody looks
export class Denied extends Error {}
export class Refused extends Error {}

let token = stored();
let waiting = null; // for a token: { promise, resolve }

function stored() {
  try {
    return sessionStorage.getItem(TOKEN) ?? "";
  } catch {
    return ""; // storage may be forbidden: the token is kept as long as the page
  }
}

/** Use this token from now on; what waits for one goes on. It is kept until the tab is closed. */
export function useToken(text) {
  token = text.trim();
  try {
    sessionStorage.setItem(TOKEN, token);
  } catch {
    // see above
  }
  waiting?.resolve();
  waiting = null;
}

async function request(path, { headers: asked, signal }) {
  const headers = { ...asked };
  const sent = token;
  if (sent) headers.authorization = `Bearer ${sent}`;
  const response = await fetch(HERE + path, { headers, signal, cache: "no-store", credentials: "same-origin", redirect: "error" });
  if (response.status !== 401) return response;
  await response.body?.cancel();
  if (sent === token) deny(sent !== "");
  throw new Denied(sent ? "the token is not accepted" : "a token is asked for");
}

function deny(wasGiven) {
  if (waiting) return;
  waiting = {};
  waiting.promise = new Promise((resolve) => (waiting.resolve = resolve));
  connection.dispatchEvent(new CustomEvent("denied", { detail: { wasGiven } }));
}

/**
 * Any path of the agent as JSON. `accepted`: statuses that are answers, too. Throws `Away`, `Denied`, `Refused`, or what fetch
 * throws. `Away` stands here, and not where polls begin, because one poll asks several things, one after the other.
 */
export async function ask(path, accepted = []) {
  await waiting?.promise;
  if (document.hidden) throw new Away("nobody looks");
  const response = await request(path, { signal: AbortSignal.timeout(ANSWER_MS) });
  if (response.ok || accepted.includes(response.status)) return response.json();
  const said = await response.json().catch(() => ({}));
  throw new Refused(said.error ?? `the agent answered ${response.status}`);
}

/** A path of our own API. */
export const own = (path, parameters = {}) => {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value != null));
  return ask(OWN + path + (query.size ? `?${query}` : ""));
};

/**
 * The stream of events, resumed by itself where it ended. Not an EventSource: that can send no token and tells no status.
 * `on(event, data, isResumed)` is called for each; `since`: how far back the first time.
 */
export class Events {
  #last = "";
  #stop = null;

  constructor(types, since, on) {
    this.types = types;
    this.since = since;
    this.on = on;
  }

  start() {
    if (this.#stop) return;
    this.#stop = new AbortController();
    this.#run(this.#stop.signal);
  }

  /** Let go of the connection, of which a browser has few; the next start goes on from here. */
  stop() {
    this.#stop?.abort();
    this.#stop = null;
  }

  async #run(stopped) {
    for (let failures = 0; !stopped.aborted; ) {
      const heard = await this.#listen(stopped);
      if (stopped.aborted) return;
      failures = heard ? 0 : failures + 1;
      await new Promise((resolve) => setTimeout(resolve, PAUSES_MS[Math.min(failures, PAUSES_MS.length - 1)]));
    }
  }

  /** Until it ends; whether anything was heard. */
  async #listen(stopped) {
    await waiting?.promise;
    if (stopped.aborted) return false;
    const attempt = new AbortController();
    const giveUp = () => attempt.abort();
    stopped.addEventListener("abort", giveUp);
    let silence = setTimeout(giveUp, SILENT_MS);
    let heard = false;
    try {
      const headers = { accept: "text/event-stream", ...(this.#last ? { "last-event-id": this.#last } : {}) };
      const query = new URLSearchParams({ types: this.types, ...(this.#last ? {} : { since: this.since }) });
      const response = await request(`events?${query}`, { headers, signal: attempt.signal });
      if (!response.ok) throw new Refused(`the agent answered ${response.status}`);
      connection.works("events");
      const isResumed = this.#last !== "";
      const parse = parser(
        (event, data) => this.on(event, JSON.parse(data), isResumed),
        (id) => (this.#last = id),
      );
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        heard = true;
        clearTimeout(silence);
        silence = setTimeout(giveUp, SILENT_MS);
        parse(part.value);
      }
      throw new Error("the stream of events ended");
    } catch (error) {
      if (!stopped.aborted && !(error instanceof Denied)) connection.fails("events", reasonOf(error));
    } finally {
      clearTimeout(silence);
      stopped.removeEventListener("abort", giveUp);
    }
    return heard;
  }
}

/** Why a request failed, for people. */
export function reasonOf(error) {
  if (error instanceof Refused) return error.message;
  return error?.name === "TimeoutError" ? "no answer" : "no connection";
}

/**
 * Server-sent events out of pieces of text (https://html.spec.whatwg.org/multipage/server-sent-events.html).
 * `on(event, data)`, then `onPlace(id)`: an id may also come alone, when what happened is none of ours.
 */
export function parser(on, onPlace) {
  let rest = "";
  let event = "";
  let data = [];
  let id = "";
  const line = (text) => {
    if (!text) {
      if (data.length) on(event || "message", data.join("\n"));
      if (id) onPlace(id);
      [event, data] = ["", []];
      return;
    }
    const colon = text.indexOf(":");
    const name = colon < 0 ? text : text.slice(0, colon);
    const value = colon < 0 ? "" : text.slice(colon + 1).replace(/^ /, "");
    if (name === "event") event = value;
    else if (name === "data") data.push(value);
    else if (name === "id" && !value.includes("\0")) id = value;
  };
  return (text) => {
    rest += text;
    const end = rest.endsWith("\r") ? rest.length - 1 : rest.length; // its line feed may come in the next piece
    const lines = rest.slice(0, end).split(/\r\n|\r|\n/);
    rest = lines.pop() + rest.slice(end);
    lines.forEach(line);
  };
}
