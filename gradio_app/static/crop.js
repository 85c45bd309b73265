// The crop box on the picture to search. `element` is Gradio's wrapper and stays; what is in it may be replaced at any
// time, so listeners sit on `element` and the state sits in the data attributes that crop.py rendered.
const crop = () => element.querySelector('.ris-crop');
const size = (c) => [Number(c.dataset.width), Number(c.dataset.height)];
const box = (c) => c.dataset.box.split(',').map(Number);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

function show(c, [x0, y0, x1, y1]) {
  const [w, h] = size(c);
  x0 = clamp(Math.round(x0), 0, w - 1);
  y0 = clamp(Math.round(y0), 0, h - 1);
  x1 = clamp(Math.round(x1), x0 + 1, w);
  y1 = clamp(Math.round(y1), y0 + 1, h);
  const whole = x0 === 0 && y0 === 0 && x1 === w && y1 === h;
  c.dataset.box = [x0, y0, x1, y1].join(',');
  c.classList.toggle('ris-is-cropped', !whole);
  const style = c.querySelector('.ris-box').style;
  style.left = (100 * x0) / w + '%';
  style.top = (100 * y0) / h + '%';
  style.width = (100 * (x1 - x0)) / w + '%';
  style.height = (100 * (y1 - y0)) / h + '%';
  c.querySelectorAll('input').forEach((input, edge) => { input.value = [x0, y0, x1, y1][edge]; });
  c.querySelector('.ris-part').textContent = whole ? `${w} × ${h} px` : `${x1 - x0} × ${y1 - y0} of ${w} × ${h} px`;
}

const reset = (c) => { show(c, [0, 0, ...size(c)]); changed(true); };

// Where the pointer is, in pixels of the picture.
function place(c, event) {
  const r = c.querySelector('.ris-stage img').getBoundingClientRect();
  const [w, h] = size(c);
  return [clamp((event.clientX - r.left) / r.width, 0, 1) * w, clamp((event.clientY - r.top) / r.height, 0, 1) * h];
}

// The shortest side of a box that is drawn: less than this, in pixels of screen and picture, is the slip of a finger.
const LEAST = 16;
function least(c) {
  const r = c.querySelector('.ris-stage img').getBoundingClientRect();
  const [w, h] = size(c);
  return [Math.min(w, Math.max(LEAST, (LEAST * w) / r.width)), Math.min(h, Math.max(LEAST, (LEAST * h) / r.height))];
}

// A corner at [x, y], the opposite one where it is, and both no nearer to each other than a box may be.
function stretched(c, [fx, fy], [x, y]) {
  const [w, h] = size(c);
  const [lw, lh] = least(c);
  const side = (from, to, low, high) => {
    const sign = Math.sign(to - from) || 1;
    const far = from + sign * Math.max(Math.abs(to - from), low);
    return far >= 0 && far <= high ? far : from - sign * low;
  };
  const [cx, cy] = [side(fx, x, lw, w), side(fy, y, lh, h)];
  return [Math.min(fx, cx), Math.min(fy, cy), Math.max(fx, cx), Math.max(fy, cy)];
}

let drag = null; // what the pointer is doing: {pointer, from, at: [clientX, clientY], before: box, corner | move}

element.addEventListener('pointerdown', (event) => {
  const stage = event.target.closest('.ris-stage');
  if (!stage || event.button !== 0 || drag) return;
  const c = crop();
  const corner = event.target.dataset.corner;
  drag = {
    pointer: event.pointerId,
    from: place(c, event),
    at: [event.clientX, event.clientY],
    before: box(c),
    corner: corner && corner.split(',').map(Number),
    move: c.classList.contains('ris-is-cropped') && Boolean(event.target.closest('.ris-box')),
  };
  stage.setPointerCapture(event.pointerId);
  event.preventDefault();
});

element.addEventListener('pointermove', (event) => {
  if (!drag || event.pointerId !== drag.pointer) return;
  const c = crop();
  if (!c) { drag = null; return; }
  // A click, or the tremble of one, draws nothing.
  if (!drag.moved && Math.hypot(event.clientX - drag.at[0], event.clientY - drag.at[1]) < 4) return;
  drag.moved = true;
  const [x, y] = place(c, event);
  const [fx, fy] = drag.from;
  const b = drag.before.slice();
  if (drag.corner) {
    const [i, j] = drag.corner;
    show(c, stretched(c, [b[2 - i], b[4 - j]], [x, y]));
  } else if (drag.move) {
    const [w, h] = size(c);
    const dx = clamp(Math.round(x - fx), -b[0], w - b[2]);
    const dy = clamp(Math.round(y - fy), -b[1], h - b[3]);
    show(c, [b[0] + dx, b[1] + dy, b[2] + dx, b[3] + dy]);
  } else {
    show(c, [Math.min(fx, x), Math.min(fy, y), Math.max(fx, x), Math.max(fy, y)]);
  }
});

const drop = (event) => {
  if (!drag || event.pointerId !== drag.pointer) return;
  const { moved, before, corner, move } = drag;
  drag = null;
  const c = crop();
  if (!moved || !c) return;
  const [x0, y0, x1, y1] = box(c);
  const [lw, lh] = least(c);
  if (!corner && !move && (x1 - x0 < Math.floor(lw) || y1 - y0 < Math.floor(lh))) show(c, before);
  if (c.dataset.box !== before.join(',')) changed(true);
};
element.addEventListener('pointerup', drop);
element.addEventListener('pointercancel', (event) => {
  if (drag && event.pointerId === drag.pointer && crop()) show(crop(), drag.before);
  drop(event);
});

// Arrows move the box; with Shift they move its right and lower edges.
let settling = 0;
element.addEventListener('keydown', (event) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!step || !event.target.matches('.ris-box') || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const c = crop();
  const [w, h] = size(c);
  const [lw, lh] = [Math.min(w, LEAST), Math.min(h, LEAST)];
  const [x0, y0, x1, y1] = box(c);
  const [dx, dy] = [step[0] * Math.max(1, Math.round(w / 50)), step[1] * Math.max(1, Math.round(h / 50))];
  if (event.shiftKey) {
    show(c, [x0, y0, clamp(x1 + dx, Math.min(x0 + lw, w), w), clamp(y1 + dy, Math.min(y0 + lh, h), h)]);
  } else {
    const [mx, my] = [clamp(dx, -x0, w - x1), clamp(dy, -y0, h - y1)];
    show(c, [x0 + mx, y0 + my, x1 + mx, y1 + my]);
  }
  clearTimeout(settling); // a held key is one change
  settling = setTimeout(changed, 400, true);
});
element.addEventListener('dblclick', (event) => { if (event.target.closest('.ris-stage')) reset(crop()); });
// What is clear in the veil is the object of the part that was drawn before: another part has another.
const at_object = () => crop()?.dataset.foreground !== undefined;
element.addEventListener('change', (event) => {
  if (event.target.matches('.ris-foreground input')) ask('foreground', { ...typed(), on: event.target.checked });
});
element.addEventListener('change', (event) => {
  if (event.target.dataset.edge === undefined) return;
  const b = box(crop());
  const edge = Number(event.target.dataset.edge);
  const typed = event.target.valueAsNumber;
  if (!Number.isNaN(typed)) {
    b[edge] = typed;
    if (edge < 2) b[edge] = Math.min(typed, b[edge + 2] - 1); // the opposite edge stays where it is
  }
  show(crop(), b);
  changed(true);
});
element.addEventListener('click', (event) => {
  if (event.target.closest('.ris-reset')) reset(crop());
  if (event.target.closest('.ris-remove')) trigger('remove');
  if (event.target.closest('.ris-beside')) ask('beside', typed());
});

// When to search. Everything that asks for a search ends in `go`, so that there is one listener for it.
// With it go the words beside the picture.
const typed = () => ({
  words: document.querySelector('.ris-words input')?.value ?? '',
  weight: Number(crop()?.dataset.weight ?? 1),
});
const at_once = () => document.querySelector('#ris-at-once input')?.checked;
// A moment later: a number that was just typed is handed over when its field is left, which the same click may do.
const go = () => setTimeout(() => { searching = chosen(); ask('go', typed()); }, 20);
const changed = (of_box = false) => {
  show_stale();
  if (of_box === true && at_object()) {
    element.querySelector('.ris-veil')?.remove();
    ask('foreground', { ...typed(), on: true }); // it comes back with the object of this part, and is searched then
    return;
  }
  if (!at_once() || document.ris_opening || !(crop() || typed().words.trim())) return;
  document.ris_cropping = of_box === true;
  go();
};
// What is chosen at this moment. Results of something else look so: nobody takes them for those of what is chosen.
const chosen = () => (({ words, weight }) => JSON.stringify([crop()?.dataset.token, crop()?.dataset.box, words.trim(), weight]))(typed());
let searching = chosen(); // what is asked
let searched = searching; // what the results are of
function show_stale() {
  const is_stale = searched !== chosen() && Boolean(document.querySelector('#ris-results .ris-tile'));
  document.querySelector('#ris-found')?.classList.toggle('ris-is-stale', is_stale);
}
document.addEventListener('ris-searched', () => { searched = searching; show_stale(); });
document.addEventListener('ris-restored', () => { searched = searching = chosen(); show_stale(); });
document.addEventListener('input', (event) => { if (event.target.closest('.ris-words')) show_stale(); });
document.addEventListener('ris-words', () => setTimeout(show_stale));
let leaving = false; // the picture is taken out of a search that goes on with its words
document.addEventListener('ris-go', () => { document.ris_cropping = false; go(); });
document.addEventListener('ris-changed', () => changed());
// Gradio (6.31) wants the name of each event that may be triggered in this script: 'keep', 'swap', 'misread', 'beside',
// 'foreground'.
document.addEventListener('ris-ask', (event) => ask(event.detail, typed()));
document.addEventListener('ris-leave-picture', () => { leaving = true; trigger('remove'); });
document.addEventListener('ris-open', (event) => ask('open', { url: event.detail }));
let token = crop()?.dataset.token; // tells a new picture from the same one shown again
new MutationObserver(() => {
  const c = crop();
  if (c?.dataset.token === token) return;
  token = c?.dataset.token;
  if (c) c.querySelector('.ris-foreground input').checked = at_object(); // what is morphed keeps the state it was clicked to
  if (!c && leaving && typed().words.trim()) go();
  leaving = false;
  show_stale();
  if (!c || c.dataset.then === 'found') return;
  // "Search with this" is a new search, not one for the words that are there.
  if (c.dataset.then) document.dispatchEvent(new CustomEvent('ris-words', { detail: '' }));
  document.ris_cropping = false;
  if (c.dataset.then === 'go') go();
  else if (c.dataset.then !== 'wait') changed();
}).observe(element, { childList: true, subtree: true, attributeFilter: ['data-token'] }); // Gradio morphs what is there
