// A chart of a container's own view: some lines over time, a limit, a scale with units, and the values under the pointer.

import { el, setAttribute, setText, svg } from "./dom.js";
import { clock } from "./format.js";
import { closed } from "./spark.js";

const WIDTH = 480;
const HEIGHT = 120;

export class Chart {
  #samples = [];

  /** `lines`: [{ title, style, of: (sample) => number }]; `show`: number -> text; `least`: of the full height. */
  constructor({ title, lines, show, least }) {
    Object.assign(this, { lines, show, least });
    this.paths = lines.map(({ style }, place) => svg(`path.line.${style}`, { "data-line": place }));
    this.area = svg(`path.area.${lines[0].style}`);
    this.limit = svg("path.limit");
    this.pointer = svg("path.pointer");
    this.values = lines.map(({ title: name, style }) => ({ name, node: el(`span.key.${style}`) }));
    this.top = el("span");
    this.from = el("span");
    this.to = el("span");
    const shape = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": title };
    this.picture = svg("svg", shape, this.area, this.limit, ...this.paths, this.pointer);
    this.title = title;
    this.node = el(
      "figure.chart", {},
      el("figcaption", {}, el("h3", {}, title), el("div.keys", {}, ...this.values.map(({ node }) => node))),
      el("div.plot", {}, this.picture, el("div.scale", { "aria-hidden": "true" }, this.top, el("span", {}, "0"))),
      el("div.times", { "aria-hidden": "true" }, this.from, this.to),
    );
    this.picture.addEventListener("pointermove", (event) => this.#point(event.offsetX / this.picture.clientWidth));
    this.picture.addEventListener("pointerleave", () => this.#point(NaN));
  }

  /** `samples`: the oldest first, with `time_ms`; `limit`: a line across, NaN for none. */
  draw(samples, limit = NaN) {
    this.#samples = samples;
    const values = this.lines.map(({ of }) => samples.map(of));
    const known = values.flat().filter(Number.isFinite);
    this.node.hidden = !known.length;
    if (this.node.hidden) return;
    const peak = known.reduce((most, value) => Math.max(most, value * 1.15), this.least);
    this.highest = Number.isFinite(limit) && limit <= peak * 4 ? Math.max(limit * 1.05, peak) : peak;
    const y = (value) => (HEIGHT - 1 - (value / this.highest) * (HEIGHT - 2)).toFixed(1);
    values.forEach((line, place) => setAttribute(this.paths[place], "d", this.#path(line, y)));
    setAttribute(this.area, "d", closed(this.paths[0].getAttribute("d"), HEIGHT));
    setAttribute(this.limit, "d", limit <= this.highest ? `M0 ${y(limit)}H${WIDTH}` : "");
    setText(this.top, this.show(this.highest));
    setText(this.from, clock(samples[0].time_ms));
    setText(this.to, clock(samples.at(-1).time_ms));
    this.#tell(samples.at(-1));
    setAttribute(this.picture, "aria-label", `${this.title}: ${this.values.map(({ node }) => node.textContent).join(", ")}`);
  }

  #x(timeMs) {
    const [first, last] = [this.#samples[0].time_ms, this.#samples.at(-1).time_ms];
    return last > first ? ((timeMs - first) / (last - first)) * WIDTH : WIDTH;
  }

  #path(line, y) {
    let isDown = false;
    return line
      .map((value, place) => {
        if (!Number.isFinite(value)) {
          isDown = false;
          return "";
        }
        const command = isDown ? "L" : "M";
        isDown = true;
        return `${command}${this.#x(this.#samples[place].time_ms).toFixed(1)} ${y(value)}`;
      })
      .join("");
  }

  #point(share) {
    const samples = this.#samples;
    if (!samples.length) return;
    if (Number.isNaN(share)) {
      setAttribute(this.pointer, "d", "");
      this.#tell(samples.at(-1));
      return;
    }
    const x = share * WIDTH;
    const away = (sample) => Math.abs(this.#x(sample.time_ms) - x);
    const nearest = samples.reduce((best, sample) => (away(sample) < away(best) ? sample : best));
    setAttribute(this.pointer, "d", `M${this.#x(nearest.time_ms).toFixed(1)} 0V${HEIGHT}`);
    this.#tell(nearest, clock(nearest.time_ms));
  }

  #tell(sample, time = "") {
    this.lines.forEach(({ of }, place) => {
      const { name, node } = this.values[place];
      setText(node, `${name} ${this.show(of(sample))}${time && place === 0 ? ` at ${time}` : ""}`);
    });
  }
}
