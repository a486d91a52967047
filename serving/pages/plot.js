// Scores over time as SVG: three strips over one time axis, so that nothing is told by colour alone.
//
// For keyboards and screen readers the scores are a list box: one stop for Tab, arrows, Home and End move, and every
// score says itself. For mouse and finger the nearest score in time is taken.

import { cut, element, fixed, isNumber, moment, svg } from "./building.js";

const STRIPS = [
  { field: "accountScore", title: "Account score (100 is like a fan)", low: 0, high: 100, ticks: [0, 50, 100], height: 150 },
  { field: "bonScore", title: "Bot-or-not (1 is a bot)", low: 0, high: 1, ticks: [0, 0.5, 1], height: 76 },
  { field: "armRisk", title: "ARM (5 is most risky)", low: 1, high: 5, ticks: [1, 3, 5], height: 76 },
];
const LEFT = 36;
const RIGHT = 14;
const TITLE = 32;
const GAP = 12;
const AXIS = 40;
const DOTS_UP_TO = 150;

/**
 * The plot.
 *
 * @param records with `time`, epoch milliseconds, ascending.
 * @param onSelect is told the record that is looked at.
 * @returns its element, which draws itself to the width it gets.
 */
export function scorePlot(records, onSelect) {
  const tip = element("div", { class: "tip", hidden: true, "aria-hidden": "true" });
  const place = element("div", { class: "plot" }, tip);
  let chosen = records.length - 1;
  let drawn = null;

  function draw() {
    const had = drawn?.node.contains(document.activeElement);
    drawn?.node.remove();
    drawn = drawing(records, Math.max(place.clientWidth, 240));
    place.prepend(drawn.node);
    listen();
    mark(chosen);
    if (had) drawn.options[chosen].focus();
  }

  function mark(number) {
    drawn.options[chosen].setAttribute("tabindex", "-1");
    drawn.options[chosen].setAttribute("aria-selected", "false");
    chosen = number;
    drawn.options[chosen].setAttribute("tabindex", "0");
    drawn.options[chosen].setAttribute("aria-selected", "true");
  }

  function choose(number, { focus = false } = {}) {
    mark(number);
    if (focus) drawn.options[number].focus();
    onSelect(records[number]);
  }

  function show(number) {
    tip.replaceChildren(...tipLines(records[number]));
    tip.hidden = false;
    // On the side with more room, so that it does not cover what led here.
    const at = drawn.x(records[number].time);
    const left = at > place.clientWidth / 2 ? at - tip.offsetWidth - 10 : at + 10;
    tip.style.left = `${Math.max(0, Math.min(place.clientWidth - tip.offsetWidth, left))}px`;
  }

  function hide() {
    tip.hidden = true;
  }

  function listen() {
    const { node, options, x } = drawn;
    const nearest = (event) => {
      const at = event.clientX - node.getBoundingClientRect().left;
      let best = 0;
      for (let number = 1; number < records.length; number++) {
        if (Math.abs(x(records[number].time) - at) <= Math.abs(x(records[best].time) - at)) best = number;
      }
      return best;
    };
    let hovered = null;
    node.addEventListener("pointermove", (event) => {
      options[hovered]?.classList.remove("hovered");
      hovered = nearest(event);
      options[hovered].classList.add("hovered");
      show(hovered);
    });
    node.addEventListener("pointerleave", () => {
      options[hovered]?.classList.remove("hovered");
      hide();
    });
    node.addEventListener("click", (event) => choose(nearest(event), { focus: true }));
    node.addEventListener("keydown", (event) => {
      const last = records.length - 1;
      const page = Math.max(1, Math.round(records.length / 10));
      const steps = {
        ArrowLeft: chosen - 1, ArrowDown: chosen - 1, ArrowRight: chosen + 1, ArrowUp: chosen + 1,
        PageDown: chosen - page, PageUp: chosen + page, Home: 0, End: last,
      };
      if (event.key === "Escape") hide();
      if (!Object.hasOwn(steps, event.key)) return;
      event.preventDefault();
      choose(Math.max(0, Math.min(last, steps[event.key])), { focus: true });
    });
  }

  // Not on the SVG itself: with a listener for focus, Chromium takes it for one more stop of the Tab key.
  place.addEventListener("focusin", (event) => {
    const number = drawn.options.indexOf(event.target);
    if (number >= 0) show(number);
  });
  place.addEventListener("focusout", hide);

  let width = 0;
  new ResizeObserver(() => {
    if (place.isConnected && place.clientWidth !== width) {
      width = place.clientWidth;
      draw();
    }
  }).observe(place);
  return place;
}

// A model of another kind may leave the range: drawn at its edge, told as it is.
function share(value, { low, high }) {
  return (Math.max(low, Math.min(high, value)) - low) / (high - low);
}

function tipLines(record) {
  const numbers = `score ${fixed(record.accountScore, 2)} · ARM ${record.armRisk ?? "–"} · bot-or-not ${fixed(record.bonScore, 4)}`;
  return [
    element("strong", {}, `${moment(record.occurredAt)} UTC`),
    element("span", {}, cut(record.activityType ?? "unknown activity", 60)),
    element("span", {}, numbers),
  ];
}

function drawing(records, width) {
  const first = records[0].time;
  const last = records.at(-1).time;
  const span = last - first;
  const inner = width - LEFT - RIGHT;
  // All at one instant: the middle.
  const x = (time) => (span ? LEFT + ((time - first) / span) * inner : LEFT + inner / 2);
  const tops = [];
  let height = 0;
  for (const strip of STRIPS) {
    tops.push(height + TITLE);
    height += TITLE + strip.height + GAP;
  }
  const bottom = height - GAP;
  const node = svg("svg", { width, height: bottom + AXIS, role: "listbox", "aria-label": "Scores over time", "aria-orientation": "horizontal" });
  const still = svg("g", { "aria-hidden": "true" });
  node.append(still);
  drawTimes(still, first, last, x, tops[0], bottom, width);
  const lines = STRIPS.map((strip, number) => {
    const top = tops[number];
    const y = (value) => top + strip.height - share(value, strip) * strip.height;
    drawStrip(still, strip, top, y, width);
    still.append(svg("path", { class: "line", d: steps(records, strip.field, x, y) }));
    return { field: strip.field, y };
  });
  const dots = records.length <= DOTS_UP_TO;
  const options = records.map((record) => {
    const option = svg("g", { role: "option", tabindex: "-1", "aria-selected": "false", "aria-label": spoken(record), class: dots ? "point" : "point dense" });
    option.append(svg("line", { class: "rule", x1: x(record.time), x2: x(record.time), y1: tops[0], y2: bottom }));
    for (const { field, y } of lines) {
      if (isNumber(record[field])) option.append(svg("circle", { cx: x(record.time), cy: y(record[field]), r: 3 }));
    }
    return option;
  });
  node.append(...options);
  return { node, options, x };
}

function spoken(record) {
  const activity = cut(record.activityType ?? "unknown activity", 60);
  return (
    `${moment(record.occurredAt)} UTC, ${activity}: account score ${fixed(record.accountScore, 2)}, ` +
    `ARM ${record.armRisk ?? "not known"}, bot-or-not ${fixed(record.bonScore, 4)}`
  );
}

// A score holds until the next one: steps, not slopes. A value that is not known leaves a gap.
function steps(records, field, x, y) {
  let path = "";
  let drawing = false;
  for (const record of records) {
    const value = record[field];
    if (drawing) path += `H${x(record.time).toFixed(1)}`;
    if (isNumber(value)) {
      path += drawing ? `V${y(value).toFixed(1)}` : `M${x(record.time).toFixed(1)} ${y(value).toFixed(1)}`;
    }
    drawing = isNumber(value);
  }
  return path;
}

function drawStrip(still, strip, top, y, width) {
  still.append(svg("text", { class: "title", x: 0, y: top - 13 }, strip.title));
  for (const tick of strip.ticks) {
    still.append(
      svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }),
      svg("text", { class: "tick", x: LEFT - 7, y: y(tick) + 4, "text-anchor": "end" }, String(tick)),
    );
  }
}

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const TIME_STEPS = [
  SECOND, 2 * SECOND, 5 * SECOND, 10 * SECOND, 30 * SECOND,
  MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 30 * MINUTE,
  HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR,
  DAY, 2 * DAY, 7 * DAY, 14 * DAY, 30 * DAY, 90 * DAY, 365 * DAY,
];

/** Times at which the axis has a tick: at most `most`, round ones, UTC. */
export function timeTicks(first, last, most) {
  if (last === first) return { ticks: [first], step: 0 };
  const fitting = (step) => Math.floor(last / step) - Math.ceil(first / step) + 1;
  let step = TIME_STEPS.find((one) => fitting(one) <= most);
  for (step ??= 2 * TIME_STEPS.at(-1); fitting(step) > most; ) step *= 2;
  const ticks = [];
  for (let time = Math.ceil(first / step) * step; time <= last; time += step) ticks.push(time);
  return ticks.length ? { ticks, step } : { ticks: [first], step: 0 };
}

function drawTimes(still, first, last, x, top, bottom, width) {
  const { ticks, step } = timeTicks(first, last, Math.max(2, Math.floor((width - LEFT) / 74)));
  for (const tick of ticks) {
    const iso = new Date(tick).toISOString();
    const text = step >= DAY ? iso.slice(0, 10) : step >= MINUTE ? iso.slice(11, 16) : iso.slice(11, 19);
    const anchor = x(tick) > width - 40 ? "end" : x(tick) < LEFT + 20 ? "start" : "middle";
    still.append(
      svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: top, y2: bottom }),
      svg("text", { class: "tick", x: x(tick), y: bottom + 17, "text-anchor": anchor }, text),
    );
  }
  const days = [first, last].map((time) => new Date(time).toISOString().slice(0, 10));
  const day = days[0] === days[1] ? `${days[0]}, UTC` : `${days[0]} to ${days[1]}, UTC`;
  still.append(svg("text", { class: "tick", x: width - RIGHT, y: bottom + 34, "text-anchor": "end" }, day));
}
