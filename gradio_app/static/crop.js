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

const reset = (c) => { show(c, [0, 0, ...size(c)]); changed(); };

// Where the pointer is, in pixels of the picture.
function place(c, event) {
  const r = c.querySelector('.ris-stage img').getBoundingClientRect();
  const [w, h] = size(c);
  return [clamp((event.clientX - r.left) / r.width, 0, 1) * w, clamp((event.clientY - r.top) / r.height, 0, 1) * h];
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
    b[i] = x;
    b[j] = y;
    show(c, [Math.min(b[0], b[2]), Math.min(b[1], b[3]), Math.max(b[0], b[2]), Math.max(b[1], b[3])]);
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
  const { moved, before } = drag;
  drag = null;
  if (moved && crop() && crop().dataset.box !== before.join(',')) changed();
};
element.addEventListener('pointerup', drop);
element.addEventListener('pointercancel', (event) => {
  if (drag && event.pointerId === drag.pointer && crop()) show(crop(), drag.before);
  drop(event);
});

element.addEventListener('dblclick', (event) => { if (event.target.closest('.ris-stage')) reset(crop()); });
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
  changed();
});
element.addEventListener('click', (event) => {
  if (event.target.closest('.ris-reset')) reset(crop());
  if (event.target.closest('.ris-remove')) trigger('remove');
});

// When to search. Everything that asks for a search ends in `go`, so that there is one listener for it.
// With it go the words beside the picture.
const typed = () => ({
  words: document.querySelector('.ris-words input')?.value ?? '',
  weight: Number(crop()?.dataset.weight ?? 1),
});
const as_you_go = () => document.querySelector('#ris-auto input')?.checked;
// A moment later: a number that was just typed is handed over when its field is left, which the same click may do.
const go = () => setTimeout(() => ask('go', typed()), 20);
const changed = () => { if (crop() && as_you_go()) go(); };
let leaving = false; // the picture is taken out of a search that goes on with its words
document.addEventListener('ris-go', go);
document.addEventListener('ris-changed', changed);
// Gradio (6.31) wants the name of each event that may be triggered in this script: 'keep', 'swap', 'misread'.
document.addEventListener('ris-ask', (event) => ask(event.detail, typed()));
document.addEventListener('ris-leave-picture', () => { leaving = true; trigger('remove'); });
document.addEventListener('ris-open', (event) => ask('open', { url: event.detail }));
let token = crop()?.dataset.token; // tells a new picture from the same one shown again
new MutationObserver(() => {
  const c = crop();
  if (c?.dataset.token === token) return;
  token = c?.dataset.token;
  if (!c && leaving && typed().words.trim()) go();
  leaving = false;
  // "Search with this" is a new search, not one for the words that are there.
  if (c?.dataset.then) document.dispatchEvent(new CustomEvent('ris-words', { detail: '' }));
  if (c?.dataset.then === 'go') go();
  else if (c?.dataset.then !== 'wait') changed();
}).observe(element, { childList: true, subtree: true, attributeFilter: ['data-token'] }); // Gradio morphs what is there

// A picture dropped on the one that is there, or pasted anywhere on the page, goes the way of an upload.
function upload_file(files) {
  const file = [...files].find((f) => f.type.startsWith('image/'));
  const input = document.querySelector('#ris-upload input[type=file]');
  if (!file || !input) return false;
  const list = new DataTransfer();
  list.items.add(file);
  input.files = list.files;
  input.dispatchEvent(new Event('change', { bubbles: true }));
  return true;
}
element.addEventListener('dragover', (event) => { if (event.dataTransfer.types.includes('Files')) event.preventDefault(); });
element.addEventListener('drop', (event) => { if (upload_file(event.dataTransfer.files)) event.preventDefault(); });
document.addEventListener('paste', (event) => { if (upload_file(event.clipboardData.files)) event.preventDefault(); });
document.ris_ready = true;
document.dispatchEvent(new Event('ris-ready'));
