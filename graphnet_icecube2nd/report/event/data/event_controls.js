// What hands and keys do.
const held = new Map();
let has_moved = false;
const local = (event) => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  held.set(event.pointerId, local(event));
  has_moved = false;
});
canvas.addEventListener("pointermove", (event) => {
  const now = local(event), before = held.get(event.pointerId);
  if (!before) {
    tell(pick(...now, 2));
    return;
  }
  const step = now.map((x, i) => x - before[i]);
  // A finger trembles; a tap is none the less a tap.
  if (!has_moved && Math.hypot(...step) < (event.pointerType === "mouse" ? 1 : 5)) return;
  if (!has_moved) tell(-1);
  has_moved = true;
  held.set(event.pointerId, now);
  if (held.size === 2) {
    const [other] = [...held].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    const apart = (at) => Math.hypot(at[0] - other[0], at[1] - other[1]) || 1;
    camera.move(step[0] / 2, step[1] / 2);
    const middle = now.map((x, i) => (x + other[i]) / 2);
    camera.zoomBy(apart(now) / apart(before), ...middle);
  } else if (event.shiftKey || event.buttons & 2) camera.move(...step);
  else camera.turn(0.4 * step[0], 0.4 * step[1], middleOfLight());
  redraw();
});
for (const kind of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(kind, (event) => {
    held.delete(event.pointerId);
    if (!has_moved && kind === "pointerup") tell(pick(...local(event), 8));
  });
}
canvas.addEventListener("pointerleave", () => { if (!held.size && has_moved) tell(-1); });
canvas.addEventListener("contextmenu", (event) => event.preventDefault());
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const unit = event.deltaMode ? 30 : 1; // lines rather than pixels
  camera.zoomBy(Math.exp(-0.0015 * unit * event.deltaY), ...local(event));
  tell(-1);
}, { passive: false });

function nextDom(step) {
  const order = seen.count.map((_, i) => i).filter((i) => seen.count[i])
    .sort((a, b) => seen.first[a] - seen.first[b]);
  if (!order.length) return;
  const here = order.indexOf(state.at);
  const from = here < 0 && step < 0 ? 0 : here;
  tell(order[(from + step + order.length) % order.length]);
}

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1],
  ArrowDown: [0, 1] };
canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const middle = camera.size.map((s) => s / 2), step = STEPS[event.key];
  if (step && event.shiftKey) camera.move(25 * step[0], 25 * step[1]);
  else if (step) camera.turn(6 * step[0], 6 * step[1], middleOfLight());
  else if ("+=".includes(event.key)) camera.zoomBy(1.2, ...middle);
  else if ("-_".includes(event.key)) camera.zoomBy(1 / 1.2, ...middle);
  else if (event.key === "Home") camera.look(...firstView());
  else if (event.key === " ") play(!state.playing);
  else if ("nN".includes(event.key)) nextDom(1);
  else if ("pP".includes(event.key)) nextDom(-1);
  else if (event.key === "Escape") tell(-1);
  else return;
  event.preventDefault();
  if (!"nNpP".includes(event.key)) tell(state.at); // so that it follows its DOM
});

/** Azimuth and height [deg] that see the first arrow from the side. */
function firstView() {
  if (!directed.length) return [-60, 12];
  const [x, y] = directed[0].flight;
  return [Math.atan2(y, x) * 180 / Math.PI - 75, 12];
}

let last_frame = 0;
function play(is_on) {
  state.playing = is_on;
  find("play").textContent = is_on ? "Pause" : "Play";
  if (!is_on) return;
  if (state.time >= range[1]) chooseTime(range[0]);
  last_frame = performance.now();
  requestAnimationFrame(advance);
}
function advance(now) {
  if (!state.playing) return;
  // Most light in six seconds, and all of it, noise included, in thirty.
  const speed = Math.max((data.time_range[1] - range[0]) / 6, (range[1] - range[0]) / 30);
  chooseTime(state.time + Math.max(now - last_frame, 0) / 1000 * speed);
  last_frame = now;
  if (state.time >= range[1]) play(false);
  else requestAnimationFrame(advance);
}

find("play").addEventListener("click", () => play(!state.playing));
slider.addEventListener("input", () => { play(false); chooseTime(+slider.value); });
find("auxiliary").addEventListener("change", (event) => {
  play(false);
  state.auxiliary = event.target.checked;
  tell(-1);
  choosePulses();
});
find("cones").addEventListener("change", (event) => {
  state.cones = event.target.checked;
  redraw();
});
const view = (id, angles) => find(id).addEventListener("click", () => {
  camera.look(...angles());
  tell(-1);
});
view("reset", firstView);
view("top", () => [-90, 90]);
view("along", () => {
  const [x, y, z] = directed[0].flight.map((value) => -value);
  return [Math.atan2(y, x) * 180 / Math.PI, Math.asin(z) * 180 / Math.PI];
});
new ResizeObserver(redraw).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
// Paper is white; the picture has to be there before the page is printed.
const paper = (is_on) => {
  document.documentElement.classList.toggle("paper", is_on);
  draw();
};
addEventListener("beforeprint", () => paper(true));
addEventListener("afterprint", () => paper(false));

fillPanel();
camera.look(...firstView());
choosePulses();
