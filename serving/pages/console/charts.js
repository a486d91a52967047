// Plots over one time axis with one crosshair: the values at it stand in the legends, with their units.
//
// Lines differ by dashes and by the mark at their end besides their colour, so that nothing is told by colour alone. For
// keyboards and screen readers the crosshair is a slider: arrows, Page Up and Down, Home and End move it.

import { age, element, isNumber, svg } from "../building.js";
import { timeTicks } from "../plot.js";
import { ago, clock } from "./words.js";

const LEFT = 50;
const RIGHT = 12;
const HEIGHT = 104;
const TOP = 8;
const AXIS = 20;
const MISSING_STEPS = 4; // a slow answer is no gap
const GAP = 28; // as the style sheet has it
const MARKS = ["circle", "square", "triangle", "diamond", "cross", "circle"];

/**
 * Plots.
 *
 * @param named what they are of, for screen readers.
 * @returns `{node, update}`: `update(times, panels, stepMs)` with times in epoch milliseconds, `stepMs` apart where none is
 *   missing, and panels `[{title, unit, format, lines: [{name, style, values}]}]`, values as long as times, null for a gap.
 */
export function charts(named) {
  const slider = element("div", { role: "slider", tabindex: "0", class: "moment", "aria-label": `Moment of ${named}`, "aria-valuemin": "0", "aria-valuenow": "0" }, "No moment is known yet.");
  const place = element("div", { class: "panels" });
  const node = element("div", { class: "charts" }, slider, place);
  let times = [];
  let panels = [];
  let step = Infinity;
  let chosen = null; // its time; null for the newest
  let drawn = [];

  const index = () => {
    if (chosen === null) return times.length - 1;
    let best = 0;
    for (let place = 1; place < times.length; place++) {
      if (Math.abs(times[place] - chosen) <= Math.abs(times[best] - chosen)) best = place;
    }
    return best;
  };

  function point() {
    const at = index();
    if (at < 0) return;
    const time = times[at];
    const text = chosen === null ? `Now: ${clock(time)} UTC` : `At ${clock(time)} UTC, ${ago(time, times.at(-1))}`;
    slider.replaceChildren(element("strong", {}, text));
    if (chosen !== null) slider.append(element("span", { class: "soft" }, " Escape: back to now"));
    slider.setAttribute("aria-valuemax", String(times.length - 1));
    slider.setAttribute("aria-valuenow", String(at));
    slider.setAttribute("aria-valuetext", spoken(text, panels, at));
    for (const one of drawn) one.point(at, chosen !== null);
  }

  function choose(time) {
    chosen = time;
    point();
  }

  function draw() {
    const width = Math.max(place.clientWidth, 240);
    const columns = width >= 760 ? 2 : 1;
    const each = Math.floor((width - (columns - 1) * GAP) / columns);
    place.classList.toggle("two", columns === 2);
    drawn = panels.map((panel) => drawPanel(panel, times, step, each, choose));
    place.replaceChildren(...drawn.map((one) => one.node));
    point();
  }

  slider.addEventListener("keydown", (event) => {
    const at = index();
    const last = times.length - 1;
    const steps = {
      ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1,
      PageDown: at - 12, PageUp: at + 12, Home: 0, End: last, Escape: last,
    };
    if (!Object.hasOwn(steps, event.key) || last < 0) return;
    event.preventDefault();
    const to = Math.max(0, Math.min(last, steps[event.key]));
    choose(to === last ? null : times[to]);
  });
  place.addEventListener("pointerleave", () => {
    if (document.activeElement !== slider) choose(null);
  });

  let width = 0;
  new ResizeObserver(() => {
    if (place.isConnected && place.clientWidth !== width) {
      width = place.clientWidth;
      draw();
    }
  }).observe(place);

  return {
    node,
    update(newTimes, newPanels, stepMs) {
      times = newTimes;
      panels = newPanels;
      step = stepMs;
      if (chosen !== null && chosen < times[0]) chosen = null;
      draw();
    },
  };
}

function spoken(text, panels, at) {
  const parts = panels.map(({ title, lines, format }) => `${title}: ${lines.map(({ name, values }) => `${name} ${format(values[at])}`).join(", ")}`);
  return `${text}. ${parts.join(". ")}`;
}

function drawPanel({ title, unit, format, lines }, times, step, width, choose) {
  const most = niceMost(Math.max(...lines.flatMap(({ values }) => values.filter(isNumber)), 0), unit);
  const first = times[0] ?? 0;
  const last = times.at(-1) ?? 1;
  const x = (time) => LEFT + (last > first ? (time - first) / (last - first) : 1) * (width - LEFT - RIGHT);
  const y = (value) => TOP + HEIGHT * (1 - value / most);
  const still = svg("g", { "aria-hidden": "true" });
  const picture = svg("svg", { width, height: TOP + HEIGHT + AXIS, "aria-hidden": "true" }, still);
  for (const tick of [0, most / 2, most]) {
    still.append(
      svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }),
      svg("text", { class: "tick", x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, unit === "seconds" ? format(tick) : short(tick)),
    );
  }
  if (times.length) drawTimes(still, first, last, x, width);
  lines.forEach(({ values, style }) => still.append(svg("path", { class: `line s${style}`, d: pathOf(times, values, step, x, y) })));
  const rule = svg("line", { class: "rule", y1: TOP, y2: TOP + HEIGHT });
  const dots = lines.map(({ style }) => mark(style));
  picture.append(rule, ...dots);
  const values = lines.map(() => element("b", {}));
  const legend = element("ul", { class: "legend" }, ...lines.map(({ name, style }, number) => element("li", {}, swatch(style), element("span", {}, name), values[number])));
  const node = element("figure", { class: "panel" }, element("figcaption", {}, element("strong", {}, title), element("span", { class: "soft" }, ` ${unit}`)), legend, picture);

  picture.addEventListener("pointermove", (event) => {
    const at = event.clientX - picture.getBoundingClientRect().left;
    let best = 0;
    for (let place = 1; place < times.length; place++) if (Math.abs(x(times[place]) - at) <= Math.abs(x(times[best]) - at)) best = place;
    if (times.length) choose(times[best]);
  });

  return {
    node,
    point(at, isChosen) {
      rule.setAttribute("x1", x(times[at]));
      rule.setAttribute("x2", x(times[at]));
      rule.setAttribute("visibility", isChosen ? "visible" : "hidden");
      lines.forEach((line, number) => {
        const value = line.values[at];
        values[number].textContent = format(value);
        dots[number].setAttribute("visibility", isNumber(value) ? "visible" : "hidden");
        if (isNumber(value)) dots[number].setAttribute("transform", `translate(${x(times[at]).toFixed(1)} ${y(value).toFixed(1)})`);
      });
    },
  };
}

/**
 * The line of a column as an SVG path. Where a value is not known, or moments are missing (the server began anew), it is
 * broken: nothing is drawn that nobody saw. A lone value is a short stroke.
 */
export function pathOf(times, values, stepMs, x, y) {
  let path = "";
  let drawing = false;
  values.forEach((value, place) => {
    const isNext = place > 0 && times[place] - times[place - 1] <= MISSING_STEPS * stepMs;
    if (isNumber(value)) {
      const at = `${x(times[place]).toFixed(1)} ${y(value).toFixed(1)}`;
      path += drawing && isNext ? `L${at}` : `M${at}h.01`;
    }
    drawing = isNumber(value);
  });
  return path;
}

function mark(style) {
  const shapes = {
    circle: () => svg("circle", { r: 4 }),
    square: () => svg("rect", { x: -3.5, y: -3.5, width: 7, height: 7 }),
    triangle: () => svg("path", { d: "M0-5L4.6 3.5H-4.6Z" }),
    diamond: () => svg("path", { d: "M0-5L5 0L0 5L-5 0Z" }),
    cross: () => svg("path", { d: "M-4-4L4 4M4-4L-4 4", class: "open" }),
  };
  return svg("g", { class: `mark s${style}` }, shapes[MARKS[style % MARKS.length]]());
}

function swatch(style) {
  const sign = mark(style);
  sign.setAttribute("transform", "translate(15 7)");
  return svg("svg", { width: 30, height: 14, class: "swatch", "aria-hidden": "true" }, svg("path", { class: `line s${style}`, d: "M0 7H30" }), sign);
}

const DAY = 86_400;
const SECONDS = [1, 2, 4, 10, 20, 60, 120, 600, 1_200, 3_600, 7_200, 14_400, 43_200, DAY]; // half of each is round too

/** The top of an axis: 1, 2 or 5 times a power of ten, for seconds round times; at least what keeps 0 at the bottom. */
export function niceMost(most, unit = "") {
  if (unit === "seconds") {
    return SECONDS.find((step) => step >= most) ?? Math.ceil(most / DAY) * DAY;
  }
  if (most <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return power * ([1, 2, 5].find((step) => step * power >= most) ?? 10);
}

function drawTimes(still, first, last, x, width) {
  const { ticks } = timeTicks(first, last, Math.max(2, Math.floor((width - LEFT) / 80)));
  const seconds = last - first < 120_000;
  for (const tick of ticks) {
    const anchor = x(tick) > width - 36 ? "end" : x(tick) < LEFT + 16 ? "start" : "middle";
    still.append(
      svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: TOP, y2: TOP + HEIGHT }),
      svg("text", { class: "tick", x: x(tick), y: TOP + HEIGHT + 15, "text-anchor": anchor }, seconds ? clock(tick) : clock(tick).slice(0, 5)),
    );
  }
}

/** A number at an axis: 0.5, 250, 2k, 100k, 1.5M. */
function short(value) {
  const [unit, by] = value >= 1e6 ? ["M", 1e6] : value >= 1e4 ? ["k", 1e3] : ["", 1];
  return `${Number((value / by).toPrecision(3)).toLocaleString("en-US")}${unit}`;
}

/** Seconds at an axis or in a legend. */
export function seconds(value) {
  return isNumber(value) ? (value > 0 && value < 1 ? `${Number(value.toPrecision(1))} s` : age(value)) : "–";
}
