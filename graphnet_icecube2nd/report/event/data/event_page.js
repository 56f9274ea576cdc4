// What is shown: which pulses until when, which arrows, and the tables beside them.
const find = (id) => document.getElementById(id);
const data = JSON.parse(find("payload").textContent);
const { detector, places, pulses, arrows, words } = data;
const directed = arrows.filter((arrow) => arrow.flight);
const canvas = find("scene"), pen = canvas.getContext("2d");
const slider = find("time");
const truth = arrows.find((arrow) => arrow.is_truth && arrow.time !== null);
const placeOf = (i) => [places.x[i], places.y[i], places.z[i]];
const bounds = (pick) => ["x", "y", "z"].map((axis) =>
  [...detector[axis], ...places[axis]].reduce((a, b) => pick(a, b)));
const camera = new Camera(bounds(Math.min), bounds(Math.max));
const state = { auxiliary: !data.only_hlc, cones: true, time: 0, playing: false,
  off: new Set(), at: -1, waiting: false };
let colours = {}, seen, total, range;

const put = (parent, tag, text = "", name = "") => {
  const made = parent.appendChild(document.createElement(tag));
  made.textContent = text; // never as HTML: names come from files
  made.className = name;
  return made;
};
const digits = (value, num) => (value === null ? "–" : value.toFixed(num));
const concise = (value) => (value === null ? "–" : `${+value.toPrecision(3)}`);
// Pulses without a charge are counted already.
const amount = (charge) => (words.charge === "pulses" ? ""
  : `, ${concise(charge)} ${words.charge}`);
const colourOf = (arrow) => arrow.colour || colours.ink;
const dashOf = (arrow) => (arrow.is_truth ? []
  : DASHES[arrows.filter((a) => !a.is_truth).indexOf(arrow) % DASHES.length]);

function choosePulses() {
  total = seenBy(pulses, places.x.length, state.auxiliary, Infinity);
  const times = pulses.time.filter((_, i) => state.auxiliary || pulses.hlc[i]);
  // Early enough to see the particle come; times are in order.
  const first = truth ? Math.max(truth.time, times[0] - 2000) : times[0];
  range = [Math.floor(Math.min(first, times[0]) - 100), Math.ceil(times.at(-1))];
  [slider.min, slider.max] = range;
  chooseTime(range[1]);
}

function chooseTime(time) {
  state.time = Math.min(Math.max(time, range[0]), range[1]);
  slider.value = state.time;
  find("now").textContent = `${Math.round(state.time)} ns`;
  slider.setAttribute("aria-valuetext", find("now").textContent);
  seen = seenBy(pulses, places.x.length, state.auxiliary, state.time);
  const sum = (list) => list.reduce((a, b) => a + b, 0);
  const lit = (what) => what.count.filter((n) => n > 0).length;
  const which = state.auxiliary ? "all pulses" : `${words.flag} pulses only`;
  find("shown").textContent = `${lit(seen)} of ${lit(total)} ${words.module}s, `
    + `${sum(seen.count)} of ${sum(total.count)} pulses${amount(sum(seen.charge))} `
    + `until ${Math.round(state.time)} ns; ${which}`;
  redraw();
}

/** Where most light was [m]. */
function middleOfLight() {
  const sum = total.charge.reduce((a, b) => a + b, 0);
  return total.charge.reduce((middle, charge, i) =>
    along(middle, charge / sum, placeOf(i)), [0, 0, 0]);
}

function redraw() {
  if (state.waiting) return;
  state.waiting = true;
  requestAnimationFrame(() => { state.waiting = false; draw(); });
}

function draw() {
  const box = canvas.getBoundingClientRect(), dense = window.devicePixelRatio || 1;
  if (!box.width) return;
  camera.size = [box.width, box.height];
  canvas.width = Math.round(box.width * dense);
  canvas.height = Math.round(box.height * dense);
  pen.setTransform(dense, 0, 0, dense, 0, 0);
  const style = getComputedStyle(document.documentElement);
  for (const name of ["paper", "ink", "string", "dom", "soft"]) {
    colours[name] = style.getPropertyValue(`--${name}`).trim();
  }
  pen.fillStyle = colours.paper;
  pen.fillRect(0, 0, ...camera.size);
  const project = camera.projection();
  const shown = arrows.filter((arrow) => !state.off.has(arrow));
  drawDetector(pen, detector, project, colours);
  for (const arrow of shown) {
    const has_cone = state.cones && arrow.radius_50 !== null;
    if (has_cone) drawCone(pen, arrow, project, colourOf(arrow));
  }
  const dots = seen.count.map((n, i) => (n ? [i, project(placeOf(i))] : null));
  for (const [i, at] of dots.filter(Boolean).sort((a, b) => a[1][2] - b[1][2])) {
    disc(pen, at, dotRadius(seen.charge[i]));
    pen.fillStyle = timeColour(seen.first[i], data.time_range);
    pen.fill();
    pen.strokeStyle = i === state.at ? colours.ink : "rgba(0, 0, 0, 0.75)";
    pen.lineWidth = i === state.at ? 3 : 0.7;
    pen.stroke();
  }
  for (const arrow of shown) {
    if (arrow.flight) drawArrow(pen, arrow, project, colourOf(arrow), dashOf(arrow));
  }
  for (const arrow of shown) {
    if (arrow.vertex) drawVertex(pen, arrow, project, colourOf(arrow));
  }
  if (truth && shown.includes(truth)) {
    drawParticle(pen, particleAt(truth, state.time), project, colours);
  }
  drawScale(pen, camera, colours);
  for (const swatch of document.querySelectorAll("canvas.swatch")) drawSwatch(swatch);
}

function drawSwatch(swatch) {
  const arrow = arrows[swatch.dataset.arrow], brush = swatch.getContext("2d");
  brush.setTransform(2, 0, 0, 2, 0, 0);
  brush.clearRect(0, 0, 34, 10);
  drawArrow(brush, { through: [0, 5, 0], flight: [1, 0, 0], begin: 0, end: 34 },
    ([x, y]) => [x, y], colourOf(arrow), dashOf(arrow));
}

function fillPanel() {
  find("title").textContent = data.title;
  find("subtitle").textContent = data.subtitle;
  canvas.setAttribute("aria-label", `${data.title}, ${data.subtitle}, in space`);
  for (const row of data.truth) {
    const line = put(find("truth"), "tr");
    put(line, "th", row[0]).scope = "row";
    put(line, "td", row[1]);
  }
  arrows.forEach((arrow, i) => {
    const line = put(find("arrows"), "tr");
    const box = put(put(line, "td"), "input");
    Object.assign(box, { type: "checkbox", checked: true, id: `arrow${i}` });
    box.addEventListener("change", () => {
      if (box.checked) state.off.delete(arrow);
      else state.off.add(arrow);
      redraw();
    });
    const label = put(put(line, "td"), "label");
    label.htmlFor = box.id;
    const swatch = put(label, "canvas", "", "swatch");
    Object.assign(swatch, { width: 68, height: 20 });
    swatch.style.cssText = "width: 34px; height: 10px; margin-right: 6px";
    swatch.dataset.arrow = i;
    put(label, "span", arrow.name);
    put(line, "td", digits(arrow.opening_angle, 2), "number");
    put(line, "td", concise(arrow.kappa), "number");
    put(line, "td", digits(arrow.radius_50, 2), "number");
  });
  const answered = arrows.filter((arrow) => arrow.answers.length);
  find("answered").hidden = !answered.length;
  for (const arrow of answered) {
    put(find("answers"), "h3", arrow.name).style.color = colourOf(arrow);
    const list = put(find("answers"), "ul");
    for (const answer of arrow.answers) put(list, "li", answer);
  }
  for (const [name, reason] of data.missing) {
    const line = put(find("arrows"), "tr");
    put(line, "td");
    put(line, "td", `${name}: ${reason}`).colSpan = 4;
  }
  find("about").textContent = (arrows.some((a) => a.radius_50 !== null)
    ? "A cone holds half of the probability of where the particle came from. " : "")
    + (truth ? "The particle is hollow before its vertex; a star is a cascade. " : "")
    + (arrows.some((a) => a.vertex)
      ? "A coloured star is a reconstructed vertex; its lines are the width along x, y, z."
      : "");
  find("colours").style.background = `linear-gradient(to right, ${TIME_COLOURS.join(",")})`;
  const [first, last] = data.time_range;
  [0, 1, 2, 3].forEach((i) => {
    const time = Math.round(first + i * (last - first) / 3);
    put(find("ticks"), "span", `${["≤ ", "", "", "≥ "][i]}${time}`);
  });
  for (const charge of [1, 10, 100, 1000]) {
    const item = put(find("sizes"), "span");
    put(item, "i").style.cssText = `width: ${2 * dotRadius(charge)}px; `
      + `height: ${2 * dotRadius(charge)}px`;
    item.append(charge < 1000 ? `${charge}` : `${charge} ${words.charge}`);
  }
  const box = find("auxiliary");
  [box.checked, box.disabled] = [state.auxiliary, !data.can_choose_hlc];
  find("along").disabled = !directed.length;
}

function tell(place) {
  const tip = find("tip");
  state.at = place;
  tip.hidden = place < 0;
  redraw();
  if (place < 0) return;
  const dom = places.dom[place];
  const name = dom < 0 ? `place ${placeOf(place).join(", ")} m`
    : `string ${detector.string[dom]}, ${words.module} ${detector.dom[dom]}`;
  const num = total.count[place];
  tip.textContent = `${name}\n${num} ${num > 1 ? "pulses" : "pulse"}`
    + `${amount(total.charge[place])}\nfirst at ${digits(total.first[place], 1)} ns`;
  find("spoken").textContent = tip.textContent;
  const at = camera.projection()(placeOf(place));
  const room = [tip.offsetWidth, tip.offsetHeight].map((s, i) => camera.size[i] - s - 4);
  const [left, top] = room.map((most, i) => Math.max(Math.min(at[i] + 12, most), 4));
  tip.style.cssText = `left: ${left}px; top: ${top}px`;
}

/** The nearest of the dots under a pixel, the one in front of others. */
function pick(x, y, reach) {
  const project = camera.projection();
  let best = -1, front = -Infinity;
  seen.count.forEach((n, i) => {
    if (!n) return;
    const at = project(placeOf(i));
    const is_near = Math.hypot(at[0] - x, at[1] - y) < dotRadius(seen.charge[i]) + reach;
    if (is_near && at[2] > front) [best, front] = [i, at[2]];
  });
  return best;
}
