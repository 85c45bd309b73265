// The field for words. `element` is Gradio's wrapper; what is typed stays in the browser until a search takes it along
// (crop.js), and is kept in the address of the page.
const form = element.querySelector('.ris-words');
const field = form.querySelector('input');
const clear = form.querySelector('.ris-clear');
const collection = () => document.querySelector('#ris-examples .ris-tile')?.dataset.collection;
const go = () => document.dispatchEvent(new Event('ris-go'));

function fill(words) {
  field.value = words;
  clear.hidden = !words;
}

form.addEventListener('submit', (event) => { event.preventDefault(); go(); });
field.addEventListener('input', () => { clear.hidden = !field.value; });
clear.addEventListener('click', () => { fill(''); field.focus(); });
document.addEventListener('ris-words', (event) => fill(event.detail));

// Whether what is chosen is searched at once: so unless the address, or what this browser keeps, says otherwise.
const at_once = element.querySelector('#ris-at-once input');
function kept_at_once() {
  try { return localStorage.getItem('ris-at-once') !== 'off'; } catch { return true; }
}
at_once.checked = new URLSearchParams(location.search).get('auto') !== '0' && kept_at_once();
at_once.addEventListener('change', () => {
  try { localStorage.setItem('ris-at-once', at_once.checked ? 'on' : 'off'); } catch { /* then until the page is left */ }
  const address = new URL(location.href);
  if (at_once.checked) address.searchParams.delete('auto');
  else address.searchParams.set('auto', '0');
  history.replaceState(history.state, '', address);
  if (at_once.checked && document.querySelector('#ris-found.ris-is-stale, #ris-found:not(:has(.ris-status))')) {
    document.dispatchEvent(new Event('ris-changed'));
  }
});

// The language model takes seconds to load: it begins to when someone is about to type.
let warmed;
field.addEventListener('focus', () => {
  if (warmed === collection()) return;
  warmed = collection();
  trigger('warm');
});

// The address: the server writes all that a search was with what it found, in <data>. Who opens it finds the same. What
// others keep in an address is left alone; `view` is the picture that is enlarged, and its own step in the history.
const names = form.dataset.names.split(' ');
const others = form.dataset.others.split(' '); // of what is browsed
const found = () => document.querySelector('#ris-results data')?.value ?? '';
function own({ view }) {
  const said = new URLSearchParams(location.search);
  for (const name of [...said.keys()]) if (!names.includes(name) || (name === 'view' && !view)) said.delete(name);
  return `${said}`;
}
function write(said, how) {
  const is_new = how === 'pushState';
  if (history.state?.ris_left) how = 'replaceState'; // the step that left what was browsed is that of this search
  const address = new URL(location.href);
  // A new step leaves what was browsed behind; it is there again by Back.
  for (const name of is_new ? [...names, ...others] : names) address.searchParams.delete(name);
  for (const [name, value] of new URLSearchParams(said)) address.searchParams.append(name, value);
  if (address.href !== location.href) history[how](null, '', address);
  shown = own({ view: false });
}
let shown = own({ view: false }); // what the page shows
let wanted = null; // the address that waits for its collection
function stop_waiting() { wanted = null; document.ris_opening = false; }
document.addEventListener('ris-searched', () => { stop_waiting(); write(found(), 'pushState'); });
document.addEventListener('ris-adjusted', () => { if (found()) write(found(), 'pushState'); });
document.addEventListener('ris-continued', () => { if (found()) write(found(), 'replaceState'); }); // no step of its own: Back leaves the search
document.addEventListener('ris-restored', () => {
  stop_waiting();
  const view = new URLSearchParams(location.search).get('view');
  if (found()) write(found() + (view ? `&view=${view}` : ''), 'replaceState');
  if (view) document.dispatchEvent(new CustomEvent('ris-view', { detail: view }));
});
function open_address() {
  const said = new URLSearchParams(location.search);
  if (own({ view: false }) === shown) { // only the viewer is another
    document.dispatchEvent(new CustomEvent('ris-view', { detail: said.get('view') }));
    return;
  }
  document.dispatchEvent(new CustomEvent('ris-view', { detail: null }));
  fill(said.get('q') ?? '');
  shown = own({ view: false });
  wanted = own({ view: true });
  document.ris_opening = true; // the collection that comes now is no reason to search
  trigger('opened', { collection: said.get('in') ?? '' });
}
function opened() {
  if (wanted === null) return;
  const name = new URLSearchParams(wanted).get('in');
  if (name && name !== collection()) return;
  const address = wanted;
  wanted = null;
  trigger('restore', { address });
}
document.addEventListener('ris-opened', opened);
document.addEventListener('ris-changed', () => { // among other things when another collection is there
  const is_other = new URLSearchParams(location.search).get('in') !== collection();
  if (wanted === null && !document.ris_opening && !found() && collection() && own({ view: true }) && is_other) {
    write(`in=${encodeURIComponent(collection())}`, 'pushState');
  }
  opened();
});
document.addEventListener('ris-open-address', ({ detail: said }) => { // once more, also what is shown
  write(said, 'pushState');
  shown = null;
  open_address();
});
// The tab that browses is there only once it was opened: its address is noticed here.
function open_tab() {
  const panel = document.querySelector('.ris-browse');
  if (new URLSearchParams(location.search).get('tab') === 'browse' && !panel?.getClientRects().length) trigger('browse');
}
addEventListener('popstate', () => { open_address(); open_tab(); });
function begin() {
  shown = '';
  open_address();
  open_tab();
}
if (document.ris_ready) begin();
else document.addEventListener('ris-ready', begin, { once: true });
