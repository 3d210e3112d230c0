// Small lines: the last two minutes of one number.

import { svg } from "./dom.js";
import { POINTS } from "./store.js";

const WIDTH = 72;
const HEIGHT = 22;

/** An empty sparkline; `draw` fills it. */
export function sparkline(metric) {
  const area = svg("path.area");
  const line = svg("path.line");
  const shape = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true", preserveAspectRatio: "none" };
  const node = svg(`svg.spark.${metric}`, shape, area, line);
  let drawn = "";
  /** `points`: the oldest first, NaN where not known. `least`: what the full height is at least, so that noise stays flat. */
  const draw = (points, least) => {
    const d = path(points, Math.max(least, ...points.filter(Number.isFinite)));
    if (d === drawn) return;
    drawn = d;
    line.setAttribute("d", d);
    area.setAttribute("d", closed(d));
  };
  return { node, draw };
}

function path(points, highest) {
  const parts = [];
  const first = POINTS - points.length;
  let isDown = false;
  points.forEach((value, place) => {
    if (!Number.isFinite(value)) {
      isDown = false;
      return;
    }
    const x = ((first + place) / (POINTS - 1)) * WIDTH;
    const y = HEIGHT - 1 - (value / highest) * (HEIGHT - 2);
    parts.push(`${isDown ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`);
    isDown = true;
  });
  return parts.join("");
}

/** The area below each piece of a line. */
export function closed(d, bottom = HEIGHT) {
  return d
    .split("M")
    .filter(Boolean)
    .map((piece) => {
      const xs = piece.split("L").map((point) => point.split(" ")[0]);
      return `M${xs[0]} ${bottom}L${piece}L${xs.at(-1)} ${bottom}Z`;
    })
    .join("");
}
