"use strict";
// Places [m] to pixels, and what is drawn there. Nothing here asks for the page.

// Red is early, as in the field's displays.
const TIME_COLOURS = ["#b2182b", "#ea4a2d", "#fa9a2c", "#f3d53e", "#86c94f", "#2bb07f",
  "#2f9fd3", "#2f63c8", "#2d2a86"];
// So that arrows differ on grey paper, too.
const DASHES = [[9, 5], [3, 3], [12, 4, 2, 4], [5, 3], [14, 6]];
const SPEED_OF_LIGHT = 0.299792458; // m/ns

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2],
  a[0] * b[1] - a[1] * b[0]];
const along = (place, step, direction) => place.map((x, i) => x + step * direction[i]);

/** What each place saw until a time [ns]: number of pulses, charge, first time. */
function seenBy(pulses, numPlaces, withAuxiliary, until) {
  const seen = { count: new Array(numPlaces).fill(0),
    charge: new Array(numPlaces).fill(0), first: new Array(numPlaces).fill(NaN) };
  for (let i = 0; i < pulses.time.length && pulses.time[i] <= until; i++) {
    if (!withAuxiliary && !pulses.hlc[i]) continue;
    const place = pulses.place[i];
    if (!seen.count[place]) seen.first[place] = pulses.time[i];
    seen.count[place] += 1;
    seen.charge[place] += pulses.charge[i];
  }
  return seen;
}

/** Colour of a time in a range [ns]; what lies outside has the colour of the end. */
function timeColour(time, [first, last]) {
  const num = TIME_COLOURS.length - 1;
  const at = Math.min(Math.max((time - first) / (last - first), 0), 1) * num;
  const low = Math.min(Math.floor(at), num - 1);
  const parts = [1, 3, 5].map((i) => {
    const [a, b] = [low, low + 1].map((n) => parseInt(TIME_COLOURS[n].substr(i, 2), 16));
    return Math.round(a + (at - low) * (b - a));
  });
  return `rgb(${parts.join(",")})`;
}

/** Radius of a dot in pixels: its area grows with the root of the charge [p.e.]. */
const dotRadius = (charge) => 2.6 * Math.min(Math.max(charge, 0.1), 1e4) ** 0.25;

/** Where the true particle is at a time [ns], and whether it is there yet. */
function particleAt(arrow, time) {
  const is_born = arrow.vertex_time === null || time >= arrow.vertex_time;
  const stays = arrow.is_vertex && is_born;
  const step = stays ? 0 : SPEED_OF_LIGHT * (time - arrow.time);
  return { place: along(arrow.through, step, arrow.flight), is_born, stays };
}

/** A parallel view: as in a drawing to scale, a metre is as long in front as behind. */
class Camera {
  constructor(low, high) {
    this.centre = low.map((x, i) => (x + high[i]) / 2);
    this.half = high.map((x, i) => (x - low[i]) / 2);
    this.size = [1, 1];
    this.look(-60, 12);
  }
  /** Looks from an azimuth and a height [deg]; the whole detector is in view. */
  look(azimuth, height) {
    Object.assign(this, { azimuth, height, zoom: 1, shift: [0, 0] });
    // Half of the width and height [m] that a box around the detector takes.
    this.reach = this.axes().slice(0, 2).map((axis) =>
      axis.reduce((sum, a, i) => sum + Math.abs(a) * this.half[i], 0) || 1);
  }
  get scale() { // pixels a metre
    return 0.42 * this.zoom * Math.min(...this.size.map((s, i) => s / this.reach[i]));
  }
  axes() {
    const [a, h] = [this.azimuth, this.height].map((x) => x * Math.PI / 180);
    const right = [-Math.sin(a), Math.cos(a), 0];
    const near = [Math.cos(h) * Math.cos(a), Math.cos(h) * Math.sin(a), Math.sin(h)];
    return [right, cross(near, right), near];
  }
  /** A function from a place [m] to pixels, and how near it is [m]. */
  projection() {
    const [right, up, near] = this.axes();
    const [x0, y0] = this.size.map((s, i) => s / 2 + this.shift[i]);
    const scale = this.scale;
    return (place) => {
      const from = place.map((x, i) => x - this.centre[i]);
      return [x0 + scale * dot(from, right), y0 - scale * dot(from, up), dot(from, near)];
    };
  }
  /** Turns by angles [deg]; near by, about a place [m], which would else get lost. */
  turn(right, down, place) {
    const before = this.projection()(place);
    this.azimuth = (this.azimuth - right) % 360;
    this.height = Math.min(Math.max(this.height + down, -90), 90);
    if (this.zoom < 1.5) return;
    const after = this.projection()(place);
    this.move(before[0] - after[0], before[1] - after[1]);
  }
  move(right, down) { this.shift = [this.shift[0] + right, this.shift[1] + down]; }
  /** Zooms by a factor about a pixel, which stays where it is. */
  zoomBy(factor, x, y) {
    const zoom = Math.min(Math.max(this.zoom * factor, 0.2), 60);
    const real = zoom / this.zoom;
    const offset = [x, y].map((p, i) => p - this.size[i] / 2);
    this.shift = this.shift.map((s, i) => offset[i] - real * (offset[i] - s));
    this.zoom = zoom;
  }
}

/** Points [px] around which a tight string would lie. */
function hull(points) {
  const sorted = [...points].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const half = (list) => {
    const kept = [];
    for (const p of list) {
      for (let n = kept.length; n > 1; n = kept.length) {
        const [a, b] = [kept[n - 2], kept[n - 1]];
        if ((b[0] - a[0]) * (p[1] - a[1]) > (b[1] - a[1]) * (p[0] - a[0])) break;
        kept.pop();
      }
      kept.push(p);
    }
    return kept.slice(0, -1);
  };
  return [...half(sorted), ...half(sorted.reverse())];
}

/** Rim [m] of an arrow's 50% cone, on the side that the particle comes from. */
function coneRim(arrow, num = 72) {
  const back = arrow.flight.map((x) => -x);
  const helper = Math.abs(back[2]) < 0.9 ? [0, 0, 1] : [1, 0, 0];
  const raw = cross(back, helper);
  const side = raw.map((x) => x / Math.hypot(...raw));
  const other = cross(back, side);
  const length = Math.abs(arrow.begin);
  const radius = arrow.radius_50 * Math.PI / 180;
  return Array.from({ length: num }, (_, i) => {
    const turn = 2 * Math.PI * i / num;
    let place = along(arrow.through, length * Math.cos(radius), back);
    place = along(place, length * Math.sin(radius) * Math.cos(turn), side);
    return along(place, length * Math.sin(radius) * Math.sin(turn), other);
  });
}

function trace(pen, points) {
  pen.beginPath();
  points.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
}

function disc(pen, [x, y], radius) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
}

function drawDetector(pen, detector, project, colours) {
  const place = (i) => project([detector.x[i], detector.y[i], detector.z[i]]);
  pen.strokeStyle = colours.string;
  pen.lineWidth = 1;
  for (const ends of detector.lines) {
    trace(pen, ends.map(place));
    pen.stroke();
  }
  pen.fillStyle = colours.dom;
  for (let i = 0; i < detector.x.length; i++) {
    const [x, y] = place(i);
    pen.fillRect(x - 0.75, y - 0.75, 1.5, 1.5);
  }
}

function drawCone(pen, arrow, project, colour) {
  const rim = coneRim(arrow).map(project);
  pen.fillStyle = pen.strokeStyle = colour;
  pen.lineWidth = 1;
  pen.globalAlpha = 0.13;
  trace(pen, hull([project(arrow.through), ...rim]));
  pen.fill();
  pen.globalAlpha = 0.7;
  trace(pen, rim);
  pen.closePath();
  pen.stroke();
  pen.globalAlpha = 1;
}

/** A reconstructed vertex with its width along x, y and z. */
function drawVertex(pen, arrow, project, colour) {
  pen.fillStyle = pen.strokeStyle = colour;
  pen.lineWidth = 1.5;
  for (const axis of [0, 1, 2]) {
    const unit = [0, 1, 2].map((i) => (i === axis ? 1 : 0));
    trace(pen, [-1, 1].map((side) => project(
      along(arrow.vertex, side * (arrow.vertex_sigma || 0), unit))));
    pen.stroke();
  }
  drawStar(pen, project(arrow.vertex), 8);
  pen.fill();
}

function drawArrow(pen, arrow, project, colour, dash) {
  const end = project(along(arrow.through, arrow.end, arrow.flight));
  const begin = project(along(arrow.through, arrow.begin, arrow.flight));
  pen.strokeStyle = pen.fillStyle = colour;
  pen.lineWidth = 2;
  pen.setLineDash(dash);
  trace(pen, [begin, end]);
  pen.stroke();
  pen.setLineDash([]);
  const [dx, dy] = [end[0] - begin[0], end[1] - begin[1]];
  const length = Math.hypot(dx, dy);
  if (length < 1) { // it is looked along
    disc(pen, end, 6);
    pen.stroke();
    return;
  }
  const [ux, uy] = [dx / length, dy / length];
  const size = Math.min(14, length / 2);
  const [x, y] = [end[0] - size * ux, end[1] - size * uy];
  const [sx, sy] = [0.4 * size * uy, -0.4 * size * ux];
  trace(pen, [end, [x + sx, y + sy], [x - sx, y - sy]]);
  pen.fill();
}

function drawStar(pen, [x, y], radius) {
  trace(pen, Array.from({ length: 10 }, (_, i) => {
    const [r, turn] = [i % 2 ? 0.45 * radius : radius, Math.PI * (i / 5 - 0.5)];
    return [x + r * Math.cos(turn), y + r * Math.sin(turn)];
  }));
  pen.closePath();
}

/** The particle: hollow before its vertex, full after it; a cascade is a star. */
function drawParticle(pen, { place, is_born, stays }, project, colours) {
  const at = project(place);
  if (stays) drawStar(pen, at, 12);
  else disc(pen, at, 7);
  pen.fillStyle = is_born ? colours.ink : colours.paper;
  pen.fill();
  pen.strokeStyle = is_born ? colours.paper : colours.ink;
  pen.lineWidth = is_born ? 1.5 : 2;
  pen.stroke();
}

/** Which way x, y and z go, and how long a metre is. */
function drawScale(pen, camera, colours) {
  const [right, up] = camera.axes();
  const [width, height] = camera.size;
  const root = [46, height - 46];
  pen.strokeStyle = pen.fillStyle = colours.ink;
  pen.lineWidth = 1.5;
  pen.font = "13px system-ui, sans-serif";
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  ["x", "y", "z"].forEach((name, i) => {
    const [dx, dy] = [right[i], -up[i]];
    trace(pen, [root, [root[0] + 26 * dx, root[1] + 26 * dy]]);
    pen.stroke();
    // One that points at the viewer has no room for its letter, nor needs it.
    const size = Math.hypot(dx, dy), reach = 26 + 11 / size;
    if (size > 0.2) pen.fillText(name, root[0] + reach * dx, root[1] + reach * dy);
  });
  const most = 160 / camera.scale;
  const decade = 10 ** Math.floor(Math.log10(most));
  const metres = [5, 2, 1].map((n) => n * decade).find((n) => n <= most);
  const length = metres * camera.scale;
  const [x, y] = [width - 20, height - 20];
  trace(pen, [[x - length, y - 5], [x - length, y], [x, y], [x, y - 5]]);
  pen.stroke();
  pen.fillText(`${+metres.toPrecision(1)} m`, x - length / 2, y - 12);
}
