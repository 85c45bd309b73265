// Draws the points of map.js by regl-scatterplot (WebGL), and over them the lists of the index, the search and thumbnails.
const NOT_DRAWN = 'This browser cannot draw the points: it has no WebGL, or it is turned off. The lists below can be opened all the same.';
const HUES = ['#4e79a7', '#f28e2b', '#e15759', '#76b7b2', '#59a14f', '#edc948', '#b07aa1', '#ff9da7', '#9c755f', '#17becf', '#8c6bb1', '#7f9f3f'];
const BRIGHT = ['#3b0f70', '#641a80', '#8c2981', '#b73779', '#de4968', '#f7705c', '#fe9f6d', '#fecf92'];
const shades = () => (is_dark() ? BRIGHT : BRIGHT.toReversed()); // from far to near: what is near stands out
const QUERY = '#f97316';
const TILE = 64; // pixels of a thumbnail
const MOST_TILES = 60;
const MOST_ENLARGED = 1000; // beyond it neighbouring points differ by less than 32-bit numbers tell
const MOST_REDUCED = 10;
const VENDORED = ['regl.min.js', 'regl-scatterplot.min.js'];
let plot = null;
let whole = { x: -1, y: -1, width: 2, height: 2 }; // where the points lie
const is_dark = () => document.body.classList.contains('dark') || document.documentElement.classList.contains('dark');
const others = () => (is_dark() ? '#64748b' : '#a3afc0');
const lists_shown = () => world?.facts.lists && mapped.querySelector('[data-lists]').checked;

// The scripts come when the tab is first shown.
let plotting = null;
const load_script = (name) => new Promise((resolve, reject) => {
  const script = document.createElement('script');
  script.src = `vendored/${name}`;
  script.addEventListener('load', resolve);
  script.addEventListener('error', () => reject(new Error('The server cannot be reached.')));
  document.head.append(script);
});
async function load_plotting() {
  window.createPubSub = await import(new URL('vendored/pub-sub-es.js', document.baseURI));
  for (const name of VENDORED) await load_script(name);
}
function has_webgl() {
  try {
    const gl = document.createElement('canvas').getContext('webgl');
    return Boolean(gl?.getExtension('OES_texture_float'));
  } catch { return false; }
}

let drawing = Promise.resolve(); // one after the other: the library drops what comes meanwhile
function draw_points() { return (drawing = drawing.catch(() => {}).then(draw_now)); }
async function draw_now() {
  const can = has_webgl();
  for (const name of ['stage', 'keys', 'tools', 'legend']) part(name).hidden = !can || !world.count;
  delete mapped.dataset.drawn;
  if (!can || !world.count) return;
  plotting ??= load_plotting();
  try { await plotting; } catch (error) { plotting = null; throw error; }
  if (colour_by() === 'score' && !world.scores) await read_scores();
  if (!map_seen()) return; // nothing has a size while another tab is shown: it is drawn on coming back
  if (colour_by() === 'score' && !world.scores) mapped.querySelector('[data-colour]').value = 'label';
  if (plot && plot.ris_crowded !== is_crowded()) { plot.destroy(); plot = null; } // what it draws with is chosen once
  if (!plot) make_plot();
  const { palette, of_points } = colours();
  const few = world.count < 5000;
  plot.set({
    backgroundColor: getComputedStyle(part('stage')).backgroundColor.match(/[\d.]+/g).slice(0, 3).map((each) => each / 255),
    pointColor: palette,
    pointColorActive: is_dark() ? '#ffffff' : '#0f172a',
    colorBy: 'category',
    pointSize: few ? 6 : world.count < 30000 ? 4 : 2.5,
    opacity: is_crowded() ? 1 : few ? 0.9 : 0.7,
  });
  const same = plot.ris_ids === world.ids;
  const kept = same ? { spatialIndex: plot.get('spatialIndex'), ...(chosen_points.length && { select: chosen_points }) } : {};
  await plot.draw({ x: world.x, y: world.y, z: of_points }, { zDataType: 'categorical', ...kept });
  if (!map_seen()) return;
  plot.ris_ids = world.ids;
  if (!same) {
    whole = extent();
    zoom_map('whole');
  }
  mapped.dataset.drawn = world.count;
  show_legend();
  draw_over();
  choose_tiles();
}

// Squares without blending look the same at two pixels, and are drawn sooner.
const is_crowded = () => world.count > 50000;
function make_plot() {
  const canvas = part('points');
  plot = window.createScatterplot.default({
    canvas,
    width: 'auto',
    height: 'auto',
    syncEvents: true,
    renderPointsAsSquares: is_crowded(),
    disableAlphaBlending: is_crowded(),
    lassoColor: QUERY,
    deselectOnEscape: false,
    pointColorHover: QUERY,
    mouseMode: is_lasso() ? 'lasso' : 'panZoom',
  });
  plot.ris_crowded = is_crowded();
  plot.subscribe('drawing', draw_over);
  plot.subscribe('view', () => { place_tiles(); tiles_later(); hide_tip(); });
  plot.subscribe('select', ({ points }) => choose_points([...points]));
  plot.subscribe('deselect', () => choose_points([]));
  plot.subscribe('pointover', show_tip);
  plot.subscribe('pointout', hide_tip);
}
const set_mode = (mode) => plot?.set({ mouseMode: mode });
function clear_points() { plot?.deselect({ preventEvent: true }); choose_points([]); }
const in_view = () => [...plot.get('pointsInView')];
function select_in_view() { const points = in_view(); plot.select(points, { preventEvent: true }); choose_points(points); }

function extent() {
  const span = (values) => values.reduce(([low, high], each) => [Math.min(low, each), Math.max(high, each)], [Infinity, -Infinity]);
  const [left, right] = span(world.x);
  const [low, high] = span(world.y);
  const [width, height] = [Math.max(right - left, 0.02) * 1.08, Math.max(high - low, 0.02) * 1.08];
  return { x: (left + right - width) / 2, y: (low + high - height) / 2, width, height };
}
const shape = () => { const { width, height } = part('points').getBoundingClientRect(); return [width, height]; };
function whole_distance() { const [width, height] = shape(); return Math.max(whole.height, whole.width * height / width) / 2; }
const bounded = (distance) => Math.min(Math.max(distance, whole_distance() / MOST_ENLARGED), whole_distance() * MOST_REDUCED);
function zoom_map(how) {
  if (!plot) return;
  if (how === 'whole') {
    plot.zoomToLocation([whole.x + whole.width / 2, whole.y + whole.height / 2], whole_distance());
    const scales = [1 / (whole_distance() * MOST_REDUCED), MOST_ENLARGED / whole_distance()];
    plot.get('camera').setScaleBounds([scales, scales]); // of the wheel
  } else plot.zoomToLocation([...plot.get('cameraTarget')].slice(0, 2), bounded(plot.get('cameraDistance') * (how === 'in' ? 1 / 1.5 : 1.5)));
}
function move_map(right, up) {
  const [x, y] = plot.get('cameraTarget');
  const step = plot.get('cameraDistance') * 0.3;
  plot.zoomToLocation([x + right * step, y + up * step], plot.get('cameraDistance'));
}

// Colours

const colour_by = () => mapped.querySelector('[data-colour]').value;
function colours() {
  const of_points = new Float32Array(world.count);
  if (colour_by() === 'list' && world.list) {
    world.list.forEach((list, point) => { of_points[point] = list < 0 ? 0 : 1 + (list % HUES.length); });
    return { palette: [others(), ...HUES], of_points };
  }
  if (colour_by() === 'score' && world.scores) {
    world.scores.shades.forEach((shade, point) => { of_points[point] = shade >> 5; });
    return { palette: shades(), of_points };
  }
  of_points.set(world.label);
  return { palette: [others(), ...HUES], of_points };
}
function show_legend() {
  const entries = [];
  if (colour_by() === 'label') {
    world.facts.labels.forEach(([name, count], place) => entries.push([HUES[place], `${name} ${count.toLocaleString('en')}`]));
    const has_others = world.label.includes(0);
    if (has_others) entries.push([others(), entries.length ? 'others' : 'no labels']);
  } else if (colour_by() === 'score') {
    const { low, high, measure } = world.scores;
    shades().forEach((hue, place, { length }) => {
      entries.push([hue, place === 0 ? `${measure} from ${low.toPrecision(2)}` : place === length - 1 ? `to ${high.toPrecision(2)} and above` : '']);
    });
  } else entries.push(['', 'Neighbouring colours tell lists apart; several lists share one.']);
  part('legend').replaceChildren(...entries.map(([hue, text]) => {
    const [item, dot] = [document.createElement('li'), document.createElement('i')];
    dot.style.background = hue || 'none';
    dot.hidden = !hue;
    item.append(dot, text);
    return item;
  }));
}

// Over the points

const over = part('over');
function to_screen(x, y) {
  const view = plot.get('camera').view;
  const [width, height] = shape();
  const right = (view[0] * x + view[4] * y + view[12]) * height / width;
  const up = view[1] * x + view[5] * y + view[13];
  return [width * (right + 1) / 2, height * (1 - up) / 2];
}
const radius = (size) => 3 + 10 * Math.sqrt(size / world.most);
function draw_over() {
  if (!plot || !world) return;
  const [width, height] = shape();
  const ratio = devicePixelRatio;
  if (over.width !== Math.round(width * ratio) || over.height !== Math.round(height * ratio)) {
    [over.width, over.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  }
  const pen = over.getContext('2d');
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const circle = (x, y, size) => { pen.beginPath(); pen.arc(x, y, size, 0, 2 * Math.PI); };
  const { lists } = world.facts;
  if (lists_shown()) {
    const probed = new Set(map_search?.engine === lists.engine ? map_search.probed : []);
    const numbers = [...lists.centres.keys()].filter((number) => lists.centres[number]);
    for (const number of numbers.sort((a, b) => probed.has(a) - probed.has(b))) { // the probed ones over the others
      const [x, y] = to_screen(...lists.centres[number]);
      circle(x, y, radius(lists.sizes[number]));
      pen.fillStyle = probed.has(number) ? 'rgb(249 115 22 / .5)' : is_dark() ? 'rgb(15 23 42 / .35)' : 'rgb(255 255 255 / .35)';
      pen.fill();
      pen.lineWidth = probed.has(number) ? 2.5 : 1.25;
      pen.strokeStyle = probed.has(number) ? QUERY : is_dark() ? '#e2e8f0' : '#334155';
      pen.stroke();
    }
  }
  if (!map_search) return;
  for (const [id, rank] of map_search.hits) {
    const point = world.point_of.get(id);
    if (point === undefined) continue;
    circle(...to_screen(world.x[point], world.y[point]), rank === 1 ? 9 : 7);
    for (const [line, style] of [[4, is_dark() ? '#0f172a' : '#ffffff'], [2, QUERY]]) { pen.lineWidth = line; pen.strokeStyle = style; pen.stroke(); }
  }
  if (!map_search.place) return;
  const [x, y] = to_screen(...map_search.place);
  pen.beginPath();
  for (const [dx, dy] of [[9, 9], [9, -9]]) { pen.moveTo(x - dx, y - dy); pen.lineTo(x + dx, y + dy); }
  for (const [line, style] of [[8, is_dark() ? '#0f172a' : '#ffffff'], [4, QUERY]]) { pen.lineWidth = line; pen.strokeStyle = style; pen.stroke(); }
}

// A click on the circle of a list; the middle one where several lie over each other.
function list_at(event) {
  if (!lists_shown() || !plot) return null;
  const box = part('points').getBoundingClientRect();
  const { centres, sizes } = world.facts.lists;
  let found = null;
  let nearest = Infinity;
  centres.forEach((centre, number) => {
    if (!centre) return;
    const [x, y] = to_screen(...centre);
    const distance = Math.hypot(event.clientX - box.left - x, event.clientY - box.top - y);
    if (distance <= Math.max(radius(sizes[number]), 8) && distance < nearest) [found, nearest] = [number, distance];
  });
  return found;
}
let pressed = null;
part('points').addEventListener('mousedown', (event) => { pressed = [event.clientX, event.clientY]; });
part('points').addEventListener('click', (event) => {
  const is_still = pressed && Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) < 4;
  const list = is_still ? list_at(event) : null;
  if (list !== null) { event.stopImmediatePropagation(); open_list(list); }
}, true);
part('points').addEventListener('mousemove', (event) => {
  const list = event.buttons ? null : list_at(event);
  part('points').style.cursor = list === null ? '' : 'pointer';
  part('points').title = list === null ? '' : `List ${list}: ${counted(world.facts.lists.sizes[list])}. A click opens them in Browse.`;
});

// Fingers: one draws the lasso, or scrolls the page where none is drawn; two move and zoom the map.

let pinch = null; // where the map was, and the place on it between two fingers
const is_lasso = () => mapped.querySelector('[data-mode=lasso]').getAttribute('aria-pressed') === 'true';
function as_mouse(kind, target, { clientX, clientY }) {
  target.dispatchEvent(new MouseEvent(kind, { clientX, clientY, buttons: kind === 'mouseup' ? 0 : 1, bubbles: true, cancelable: true }));
}
function between(touches) { // their middle, from the middle of the map in halves of its height, and how far apart they are
  const box = part('points').getBoundingClientRect();
  const [a, b] = touches;
  const [x, y] = [(a.clientX + b.clientX) / 2 - box.left, (a.clientY + b.clientY) / 2 - box.top];
  return { right: (2 * x - box.width) / box.height, up: 1 - 2 * y / box.height, span: Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) };
}
part('points').addEventListener('touchstart', (event) => {
  if (!plot || (event.touches.length === 1 && !is_lasso())) return;
  event.preventDefault();
  if (event.touches.length === 1) return as_mouse('mousedown', part('points'), event.touches[0]);
  const { right, up, span } = between(event.touches);
  const distance = plot.get('cameraDistance');
  const [x, y] = plot.get('cameraTarget');
  pinch = { x: x + right * distance, y: y + up * distance, reach: span * distance };
}, { passive: false });
part('points').addEventListener('touchmove', (event) => {
  if (pinch && event.touches.length === 2) {
    event.preventDefault();
    const { right, up, span } = between(event.touches);
    const distance = bounded(pinch.reach / Math.max(span, 10));
    plot.zoomToLocation([pinch.x - right * distance, pinch.y - up * distance], distance);
  } else if (!pinch && is_lasso()) {
    event.preventDefault();
    as_mouse('mousemove', window, event.touches[0]);
  }
}, { passive: false });
part('points').addEventListener('touchend', (event) => {
  if (!pinch && is_lasso()) as_mouse('mouseup', window, event.changedTouches[0]);
  if (event.touches.length < 2) pinch = null;
});

// Thumbnails: as many as have room beside each other, once the map is enlarged.

const tiles = new Map(); // id to element
let shown_tiles = [];
let tile_timer = 0;
let tile_turn = 0;
const tiles_later = () => { clearTimeout(tile_timer); tile_timer = setTimeout(choose_tiles, 150); };
function forget_tiles() { tiles.clear(); shown_tiles = []; part('tiles').replaceChildren(); }
const thumb_of = (point) => `pictures/${encodeURIComponent(world.name)}/${world.ids[point]}/thumb?${new URL(world.facts.points, document.baseURI).searchParams}`;

async function choose_tiles() {
  if (!plot || !world?.count) return;
  const mine = ++tile_turn;
  const points = in_view();
  const is_near = points.length <= MOST_TILES || plot.get('cameraDistance') < whole_distance() / 2.5;
  const [width, height] = shape();
  const taken = [];
  const candidates = is_near ? [...shown_tiles, ...points.slice(0, 20000)] : [];
  for (const point of candidates) {
    if (taken.length === MOST_TILES) break;
    const [x, y] = to_screen(world.x[point], world.y[point]);
    const is_inside = x > TILE / 2 && y > TILE / 2 && x < width - TILE / 2 && y < height - TILE / 2;
    if (is_inside && taken.every(([, a, b]) => Math.abs(a - x) > TILE + 4 || Math.abs(b - y) > TILE + 4)) taken.push([point, x, y]);
  }
  const wanted = taken.map(([point]) => point);
  const missing = wanted.filter((point) => !tiles.has(world.ids[point]));
  if (missing.length) {
    let html;
    try { html = await (await send_ids('tiles', missing)).text(); } catch { return; }
    if (mine !== tile_turn) return;
    if (tiles.size > 500) tiles.clear();
    const box = document.createElement('div');
    box.innerHTML = html;
    for (const tile of box.querySelectorAll('.ris-tile')) tiles.set(Number(tile.dataset.id), tile);
  }
  shown_tiles = wanted.filter((point) => tiles.has(world.ids[point]));
  const keep = new Set(shown_tiles.map((point) => tiles.get(world.ids[point])));
  for (const tile of [...part('tiles').children]) if (!keep.has(tile)) tile.remove();
  for (const tile of keep) if (!tile.isConnected) part('tiles').append(tile);
  place_tiles();
}
function place_tiles() {
  for (const point of shown_tiles) {
    const [x, y] = to_screen(world.x[point], world.y[point]);
    tiles.get(world.ids[point]).style.transform = `translate(${(x - TILE / 2).toFixed(1)}px, ${(y - TILE / 2).toFixed(1)}px)`;
  }
}
part('tiles').addEventListener('wheel', (event) => {
  event.preventDefault();
  part('points').dispatchEvent(new WheelEvent('wheel', event));
}, { passive: false });

function show_tip(point) {
  const tip = part('tip');
  const [x, y] = to_screen(world.x[point], world.y[point]);
  const [width] = shape();
  const label = world.facts.labels[world.label[point] - 1]?.[0];
  const list = world.list && world.list[point] >= 0 ? `list ${world.list[point]}` : '';
  tip.querySelector('img').src = thumb_of(point);
  tip.querySelector('span').textContent = [label, list].filter(Boolean).join(' · ');
  tip.style.transform = `translate(${Math.min(x + 12, width - 150)}px, ${y > 150 ? y - 140 : y + 12}px)`;
  tip.hidden = false;
}
function hide_tip() { part('tip').hidden = true; }
part('stage').addEventListener('mouseleave', hide_tip);

new ResizeObserver(() => { if (plot && map_seen()) { draw_over(); place_tiles(); } }).observe(part('stage'));
let was_dark = is_dark();
new MutationObserver(() => {
  if (was_dark === is_dark()) return;
  was_dark = is_dark();
  if (mapped.dataset.drawn && map_seen()) draw_points();
})
  .observe(document.body, { attributes: true, attributeFilter: ['class'] });

if (map_seen()) show_map();
