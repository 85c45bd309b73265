// The Browse tab: facets and a leaf of pictures, drawn by the server. Each control holds the address that it leads to, in
// data-to; here it is followed, and written into the address of the page beside that of a search. Needs grid.js.
const panel = element.querySelector('.ris-browse');
const leaf = panel.querySelector('.ris-leaf');
const facet_list = panel.querySelector('.ris-facet-list');
const parts = panel.dataset.names.split(' '); // of an address
const opened = new Set(['label', 'album', 'tag', 'folder']);
const whole = new Set();
let browsed = null; // the address that is shown
let only_selected = () => undefined; // how to ask for the selected pictures alone: see select.js
let browse_turn = 0; // an answer to what was asked before the last question is dropped

const browse_in = () => document.querySelector('#ris-examples .ris-tile')?.dataset.collection;
const is_seen = () => panel.getClientRects().length > 0;
const in_address = () => new URLSearchParams(location.search);
const is_asked = () => in_address().get('tab') === 'browse';
function own_part() {
  const said = in_address();
  for (const name of [...said.keys()]) if (!parts.includes(name)) said.delete(name);
  return `${said}`;
}

// A step in the history, or none. The search and what else is in an address stays.
function write_address(said, how) {
  const address = new URL(location.href);
  for (const name of [...parts, 'view']) address.searchParams.delete(name);
  for (const [name, value] of new URLSearchParams(said)) address.searchParams.append(name, value);
  if (said) address.searchParams.set('in', browse_in());
  if (address.href !== location.href) history[how](said ? null : { ris_left: true }, '', address);
}

async function read(place, options) {
  let reply, text;
  try {
    reply = await fetch(place, options);
    text = await reply.text();
  } catch { return { fault: 'The server cannot be reached.' }; }
  return reply.ok ? { text } : { fault: reason(text) ?? `The server answered ${reply.status}.` };
}

function put(place, text) { // whoever uses the keyboard goes on where they were
  const key = place.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  place.innerHTML = text;
  if (!key) return;
  const same = place.querySelector(`[data-key="${CSS.escape(key)}"]:not(:disabled)`);
  (same ?? (place === leaf ? leaf : panel.querySelector('summary'))).focus({ preventScroll: true });
}

// Draw what an address asks for, and write it: how is pushState, replaceState, or null for an address that is there.
async function browse(said, how, { counts = true } = {}) {
  const name = browse_in();
  if (!name) return;
  const mine = ++browse_turn;
  const place = `browse/${encodeURIComponent(name)}`;
  const counted = counts ? count(place, said, mine) : null;
  const { text, fault } = await read(`${place}?${said}`, only_selected());
  if (mine !== browse_turn) return;
  if (fault) {
    leaf.innerHTML = '<p class="ris-fault" role="alert"></p><button type="button" class="ris-show-all" data-to="">Show all pictures</button>';
    leaf.firstElementChild.textContent = fault;
    browsed = said;
  } else {
    put(leaf, text);
    browsed = leaf.querySelector('data').value;
  }
  if (how) write_address(fault ? said : browsed, how);
  await counted;
  leaf.dataset.drawn = mine; // all of it is there
  const view = in_address().get('view');
  if (view && !how) document.dispatchEvent(new CustomEvent('ris-view', { detail: view }));
  document.dispatchEvent(new Event('ris-leaf'));
}

async function count(place, said, mine) {
  const wanted = new URLSearchParams(said);
  for (const field of opened) wanted.append('open', field);
  for (const field of whole) wanted.append('whole', field);
  const { text } = await read(`${place}/facets?${wanted}`);
  if (text !== undefined && mine === browse_turn) put(facet_list, text);
}

panel.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (button?.dataset.to !== undefined) {
    const turns = /^(before|behind|tile|shuffle)/.test(button.dataset.key ?? '');
    const is_below = button.dataset.key?.endsWith('below');
    browse(button.dataset.to, 'pushState', { counts: !turns }).then(() => { if (is_below) leaf.scrollIntoView({ block: 'start' }); });
  } else if (button?.dataset.whole) {
    const field = button.dataset.whole;
    if (!whole.delete(field)) whole.add(field);
    browse(browsed ?? '', null);
  }
});
panel.addEventListener('change', (event) => {
  if (event.target.matches('select')) browse(event.target.value, 'pushState', { counts: false });
  if (event.target.matches('.ris-leaf-number')) {
    const said = new URLSearchParams(event.target.dataset.to);
    said.set('leaf', Math.max(1, event.target.valueAsNumber || 1));
    browse(`${said}`, 'pushState', { counts: false });
  }
});
// A facet is counted when it is opened.
panel.addEventListener('toggle', (event) => {
  const field = event.target.dataset?.facet;
  if (!field || event.target.open === opened.has(field)) return;
  if (event.target.open) opened.add(field);
  else opened.delete(field);
  if (event.target.open) browse(browsed ?? '', null);
}, true);

// The address says what is shown; where it says nothing, the tab shows what it showed.
function look() {
  if (!browse_in()) return;
  const is_here = (in_address().get('in') ?? browse_in()) === browse_in(); // else it waits for its collection
  if (is_asked()) browse(is_here ? own_part() : '', null);
  else browse(browsed ?? 'tab=browse', 'pushState');
}
document.addEventListener('ris-browse', look);
document.addEventListener('ris-changed', () => {
  if (document.ris_opening || !is_seen()) {
    browsed = null;
    if (is_seen()) look();
    return;
  }
  if (in_address().get('in') === browse_in() && is_asked()) look();
  else browse('tab=browse', 'pushState');
});
addEventListener('popstate', () => {
  if (is_asked() && is_seen() && own_part() !== browsed) browse(own_part(), null);
  else if (!is_asked() && is_seen()) trigger('leave');
});
// Another tab is chosen: then the address is no longer one of this.
let was_seen = false;
new IntersectionObserver(() => {
  if (was_seen && !is_seen() && is_asked()) write_address('', 'pushState');
  was_seen = is_seen();
}).observe(panel);

// Words that are edited in the viewer count once it is closed.
let edited = false;
document.addEventListener('ris-said', () => { edited = true; });
document.addEventListener('close', () => { if (edited && is_seen()) browse(browsed ?? '', null); edited = false; }, true);

if (matchMedia('(max-width: 860px)').matches) panel.querySelector('.ris-facets').open = false;
look();
