/* What all steps draw with: elements, thumbnails, sliders, tables, and numbers read from data.js. */
"use strict";

const DATA = window.EXPLAINER;
if (DATA.problem) {
  document.getElementById("lead").textContent = DATA.problem;
  document.querySelector("main").replaceChildren();
  throw new Error(DATA.problem);
}
const INDEX_OF = new Map(DATA.ids.map((id, index) => [id, index]));
const COLUMNS = 12;
const CELLS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const SVG = "http://www.w3.org/2000/svg";

/* Numbers */
function unpacked(text, Type) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Type(bytes.buffer);
}
function ofSteps(packed) {
  return Float64Array.from(unpacked(packed.data, Uint16Array), (n) => packed.low + packed.step * n);
}
const numbersOf = (text) => Array.isArray(text) ? text : Array.from(text, (c) => CELLS.indexOf(c));
const short = (value) => Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(3);
const percent = (share) => (100 * share < 10 && share > 0 ? (100 * share).toFixed(1) : (100 * share).toFixed(0)) + " %";
const counted = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many || one + "s"}`;
const ordinal = (n) => n + (n % 100 > 10 && n % 100 < 14 ? "th" : ["th", "st", "nd", "rd"][n % 10] || "th");
function bytes(n) {
  return n < 10000 ? `${n.toLocaleString("en")} bytes` : n < 1e6 ? `${(n / 1e3).toFixed(0)} kB` : `${(n / 1e6).toFixed(1)} MB`;
}
const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);

/* Elements */
function put(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "html") node.innerHTML = value;
    else if (name === "style") node.style.cssText = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(2)) if (child !== null && child !== undefined && child !== false) node.append(child);
  return node;
}
const el = (tag, attributes, ...children) => put(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => put(document.createElementNS(SVG, tag), attributes, children);

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
function cellColour(number, count, alpha = 1) {
  // Neighbouring numbers get hues far apart; every other one is a little lighter.
  const hue = (number * 137.508 + 20) % 360;
  const light = Number(colour("--cell-l")) + (number % 2 ? 0.07 : -0.04);
  return `oklch(${light} ${colour("--cell-c")} ${hue} / ${alpha})`;
}
function shade(share) {
  return `color-mix(in oklab, ${colour("--scale-1")} ${(100 * Math.min(1, Math.max(0, share))).toFixed(1)}%, ${colour("--scale-0")})`;
}
function rgb(name) {
  const context = el("canvas", { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  context.fillStyle = colour(name);
  context.fillRect(0, 0, 1, 1);
  return context.getImageData(0, 0, 1, 1).data;
}
/* A picture of one pixel a number: 0 is faint, 1 is strong. */
function paint(canvas, width, height, shares) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  const faint = rgb("--scale-0"), strong = rgb("--scale-1");
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = faint[c] + (strong[c] - faint[c]) * shares[i];
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/* Pictures: stored ones first, then the queries. */
const ofQuery = (query) => DATA.pictures.length + query;
function thumb(index, side, attributes, tag = "span") {
  const { class: kind = "", style = "", ...rest } = attributes || {};
  const place = index === undefined ? "background-image:none" :
    `background-size:${COLUMNS * side}px auto;background-position:${-(index % COLUMNS) * side}px ${-Math.floor(index / COLUMNS) * side}px`;
  return el(tag, { class: `thumb ${kind}`, style: `width:${side}px;height:${side}px;${place};${style}`, ...rest });
}
const labelOf = (id) => INDEX_OF.has(id) ? DATA.pictures[INDEX_OF.get(id)].label : `picture ${id}`;

/* Controls */
let made = 0;
function slider(name, { min = 1, max, value, shown = String, id }, changed) {
  const key = id || `control-${++made}`;
  const out = el("output", { for: key }, shown(value));
  const input = el("input", { type: "range", id: key, min, max, value, "aria-valuetext": shown(value) });
  input.addEventListener("input", () => {
    out.textContent = shown(Number(input.value));
    input.setAttribute("aria-valuetext", out.textContent);
    changed(Number(input.value));
  });
  const set = (to, top = max) => {
    input.max = top;
    input.value = to;
    out.textContent = shown(to);
    input.setAttribute("aria-valuetext", out.textContent);
  };
  return { node: el("div", { class: "control" }, el("label", { for: key }, name), input, out), input, set };
}
function picks(name, title, indexes, labels, chosen, side, changed) {
  return el("fieldset", { class: "picks" }, el("legend", {}, title), indexes.map((index, i) => el("label", { class: "pick", title: labels[i] },
    el("input", { type: "radio", name, value: i, checked: i === chosen, "aria-label": labels[i], onchange: () => changed(i) }),
    thumb(index, side))));
}

/* What a figure says in words, and in a table; tests compare its values with the library's. */
class Telling {
  constructor(figure) {
    this.figure = figure;
    this.told = el("p", { class: "told", "aria-live": "polite" });
    this.body = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "The numbers" });
    this.details = el("details", {}, el("summary", {}, "The numbers as a table"), this.body);
    this.table = null;
    this.details.addEventListener("toggle", () => this.fill());
  }
  say(html, values, heads, rows) {
    this.told.innerHTML = html;
    this.told.dataset.values = JSON.stringify(values);
    this.table = () => el("table", {}, el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, rows().map((row) => el("tr", {}, row.map((cell) => el("td", { class: typeof cell === "number" ? "num" : "" }, String(cell)))))));
    for (const image of this.figure.querySelectorAll("[data-told]")) image.setAttribute("aria-label", this.told.textContent);
    this.fill();
  }
  fill() {
    if (this.details.open && this.table) this.body.replaceChildren(this.table());
  }
  nodes() { return [this.told, this.details]; }
}

/* Points 0 to 1 on a stage, moved apart so that thumbnails do not lie on each other. */
function spread(points, width, height, side) {
  const margin = side * 0.75;
  const at = points.map(([x, y]) => [margin + x * (width - 2 * margin), margin + y * (height - 2 * margin)]);
  const apart = side * 1.06;
  for (let round = 0; round < 90; round++) {
    let moved = false;
    for (let i = 0; i < at.length; i++) for (let j = i + 1; j < at.length; j++) {
      let dx = at[j][0] - at[i][0], dy = at[j][1] - at[i][1];
      if (Math.abs(dx) >= apart || Math.abs(dy) >= apart) continue;
      if (dx === 0 && dy === 0) dx = 0.01 * (1 + i);
      const distance = Math.hypot(dx, dy), push = Math.min(0.25 * (apart - Math.max(Math.abs(dx), Math.abs(dy))) + 0.3, 4) / distance;
      at[i][0] -= dx * push; at[i][1] -= dy * push; at[j][0] += dx * push; at[j][1] += dy * push;
      moved = true;
    }
    for (const point of at) {
      point[0] = Math.min(width - margin, Math.max(margin, point[0]));
      point[1] = Math.min(height - margin, Math.max(margin, point[1]));
    }
    if (!moved) break;
  }
  return at;
}
/* A stage of pictures that is laid out anew when its width changes. */
function stageOf(stage, draw) {
  let width = 0;
  const laid = () => {
    const now = Math.round(stage.clientWidth);
    if (!now || now === width) return;
    width = now;
    draw(now);
  };
  new ResizeObserver(laid).observe(stage);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(width || stage.clientWidth));
  return () => draw(width || stage.clientWidth);
}
const thumbSide = (width) => width < 480 ? 24 : width < 760 ? 30 : 40;
const mapHeight = (width) => width < 480 ? width * 1.15 : Math.min(600, width * 0.72);
