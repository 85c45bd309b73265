// Selecting in the Browse tab, by mouse and by keyboard; what is selected stays while pages are turned. Needs browse.js.
const bar = panel.querySelector('.ris-selection');
const MOST_SELECTED = 10000; // as the server takes
const selected = new Map(); // id to content
let selected_in = null; // the collection
let anchor = null; // from where Shift extends
let is_only = false; // whether nothing but what is selected is shown
only_selected = () => (is_only && selected.size ? {
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify({ ids: [...selected.keys()].map(Number).slice(0, MOST_SELECTED) }),
} : undefined);
function show_only(wanted) {
  if (is_only === wanted) return;
  is_only = wanted;
  if (browsed !== null) browse(new URLSearchParams(browsed).size ? browsed : 'tab=browse', null, { counts: false });
}

const leaf_tiles = () => [...leaf.querySelectorAll('.ris-tile')];
const place_of = (name) => `selection/${encodeURIComponent(browse_in())}${name}`;

function show_selection() {
  for (const tile of leaf_tiles()) {
    const is_it = selected.has(tile.dataset.id);
    tile.classList.toggle('ris-is-selected', is_it);
    tile.querySelector('.ris-select').setAttribute('aria-pressed', String(is_it));
  }
  bar.hidden = !selected.size;
  panel.classList.toggle('ris-is-only-selected', is_only && selected.size > 0);
  bar.querySelector('[data-select=only]')?.setAttribute('aria-pressed', String(is_only));
  const count = bar.querySelector('[data-count]');
  if (count) count.textContent = selected.size.toLocaleString('en');
  else if (selected.size) tools();
}
function choose(tile, is_chosen) {
  if (is_chosen) selected.set(tile.dataset.id, tile.dataset.content);
  else selected.delete(tile.dataset.id);
}
function extend(to) {
  const tiles = leaf_tiles();
  const [from, end] = [Math.max(0, tiles.findIndex((tile) => tile.dataset.id === anchor)), tiles.indexOf(to)];
  for (const tile of tiles.slice(Math.min(from, end), Math.max(from, end) + 1)) choose(tile, true);
}
function select(tile, { shift }) {
  if (shift && anchor !== null) extend(tile);
  else { choose(tile, !selected.has(tile.dataset.id)); anchor = tile.dataset.id; }
  show_selection();
}

async function tools(edit) {
  const options = edit && { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(edit) };
  const { do: what, name, text } = bar.querySelector('form')?.elements ?? {};
  const kept = what && { do: what.value, name: name.value };
  let reply, html;
  try {
    reply = await fetch(place_of(''), options);
    html = await reply.text();
  } catch { return selection_fault('The server cannot be reached.'); }
  if (!reply.ok) return selection_fault(reason(html) ?? `The server answered ${reply.status}.`);
  bar.innerHTML = html;
  if (kept && bar.querySelector('form')) {
    bar.querySelector('form').elements.do.value = kept.do;
    bar.querySelector('form').elements.name.value = kept.name;
  }
  fit_form();
  show_selection();
  if (edit) {
    bar.querySelector('form')?.elements.do.focus();
    browse(browsed ?? '', null);
  }
}
function selection_fault(sentence) {
  const fault = bar.querySelector('.ris-said-fault');
  if (!fault) return;
  fault.hidden = false;
  fault.textContent = sentence;
}
function fit_form() {
  const form = bar.querySelector('form');
  if (!form) return;
  const { do: what, name, text } = form.elements;
  name.hidden = what.value !== 'field';
  text.hidden = what.value.endsWith('favourite');
  text.placeholder = { caption: 'caption', album: 'album', no_album: 'album', field: 'value' }[what.value] ?? 'tag';
  text.setAttribute('aria-label', text.placeholder);
  if (what.value.endsWith('album')) text.setAttribute('list', 'ris-albums');
  else text.removeAttribute('list');
}
const pictures = () => [...selected].map(([id, content]) => [Number(id), content]);

// A download is the answer to a form: the browser keeps it without holding it in memory.
function get(kind) {
  const form = document.createElement('form');
  form.method = 'POST';
  form.action = place_of(kind === 'zip' ? '/zip' : '/export');
  for (const [name, value] of Object.entries({ kind, pictures: JSON.stringify(pictures()) })) {
    const field = document.createElement('input');
    [field.type, field.name, field.value] = ['hidden', name, value];
    form.append(field);
  }
  document.body.append(form);
  form.submit();
  form.remove();
}
async function select_all() {
  const { text, fault } = await read(place_of(`/all?${browsed}`));
  if (fault) return selection_fault(fault);
  for (const [id, content] of JSON.parse(text)) selected.set(String(id), content);
  show_selection();
}
function clear() { selected.clear(); anchor = null; show_selection(); show_only(false); }

bar.addEventListener('click', ({ target }) => {
  const { select: what, get: kind, undo } = target.closest('button')?.dataset ?? {};
  if (what === 'all') select_all();
  if (what === 'none') clear();
  if (what === 'only') show_only(!is_only);
  if (what === 'keys') show_keys();
  if (kind) get(kind);
  if (undo) tools({ do: 'undo', edit: Number(undo) });
});
bar.addEventListener('change', ({ target }) => { if (target.name === 'do') fit_form(); });
bar.addEventListener('submit', (event) => {
  event.preventDefault();
  const { do: what, name, text } = event.target.elements;
  tools({ do: what.value, name: name.value, text: text.value, pictures: pictures() });
});
leaf.addEventListener('click', (event) => {
  const tile = event.target.closest('.ris-tile');
  if (tile && event.target.closest('.ris-select')) select(tile, { shift: event.shiftKey });
});
document.addEventListener('ris-leaf', () => {
  if (selected_in !== browse_in()) { selected.clear(); bar.replaceChildren(); is_only = false; }
  selected_in = browse_in();
  show_selection();
});

// What another tab has selected takes the place of what was; the map leaves it here.
function take_selected() {
  const { collection, pictures } = document.ris_selected ?? {};
  if (!pictures || collection !== browse_in()) return;
  document.ris_selected = null;
  selected.clear();
  for (const [id, content] of pictures) selected.set(String(id), content);
  if (selected_in !== collection) bar.replaceChildren();
  selected_in = collection;
  is_only = true;
  show_selection();
  if (is_seen()) look(); // what is on its way shows all
}
document.addEventListener('ris-select', take_selected);
take_selected();

const KEYS = [
  ['Arrows', 'move from picture to picture'], ['Enter', 'enlarge'], ['Space', 'select, or no longer'],
  ['Shift + arrow', 'extend the selection'], ['Escape', 'clear the selection'], ['/', 'to the search box'], ['?', 'this list'],
];
function show_keys() {
  const dialog = document.createElement('dialog');
  dialog.className = 'ris-confirm ris-keys';
  dialog.setAttribute('aria-label', 'Keys');
  dialog.innerHTML = '<form method="dialog"><h2>Keys</h2><dl></dl><div><button>Close</button></div></form>';
  for (const [key, what] of KEYS) {
    const [term, meaning] = [document.createElement('dt'), document.createElement('dd')];
    [term.textContent, meaning.textContent] = [key, what];
    dialog.querySelector('dl').append(term, meaning);
  }
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

// The picture above or below: the one in the next row whose middle is nearest.
function moved(tile, key) {
  const tiles = leaf_tiles();
  const place = tiles.indexOf(tile);
  if (key === 'ArrowLeft') return tiles[place - 1];
  if (key === 'ArrowRight') return tiles[place + 1];
  const columns = tiles.filter((each) => each.offsetTop === tiles[0].offsetTop).length;
  return tiles[place + (key === 'ArrowDown' ? columns : -columns)];
}
document.addEventListener('keydown', (event) => {
  if (!is_seen() || document.querySelector('dialog[open]') || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches('input, textarea, select, [contenteditable]')) return;
  const tile = event.target.closest('.ris-leaf .ris-tile');
  const on_picture = tile && event.target.matches('.ris-open');
  if (event.key === '?') { event.preventDefault(); show_keys(); }
  else if (event.key === '/') {
    event.preventDefault();
    trigger('leave');
    const field = document.querySelector('.ris-words input');
    const wait = () => (field.getClientRects().length ? field.focus() : requestAnimationFrame(wait));
    wait();
  } else if (event.key === 'Escape' && selected.size) clear();
  else if (on_picture && event.key === ' ') { event.preventDefault(); select(tile, { shift: false }); }
  else if (event.key.startsWith('Arrow') && (on_picture || event.target === document.body || event.target === leaf)) {
    const next = on_picture ? moved(tile, event.key) : leaf_tiles()[0];
    if (!next) return;
    event.preventDefault();
    if (event.shiftKey && on_picture) {
      anchor ??= tile.dataset.id;
      extend(next);
      show_selection();
    }
    next.querySelector('.ris-open').focus();
  }
});
leaf.addEventListener('keyup', (event) => { if (event.key === ' ' && event.target.matches('.ris-open')) event.preventDefault(); });
