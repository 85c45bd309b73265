// The Map tab: what is drawn, read from the server, and what is done with it. map_points.js draws. Needs grid.js.
const mapped = element.querySelector('.ris-mapped');
const part = (name) => mapped.querySelector(`.ris-mapped-${name}`);
const browse_names = mapped.dataset.names.split(' ');
const MOST_SELECTED = 10000;
let world = null; // {name, facts, count, ids, x, y, label, list, scores}: numbers in the order of the points
let map_search = null; // what was searched last in this collection: see tabs/map/handlers.py
let chosen_points = []; // the selected ones
let map_turn = 0; // an answer to what was asked before the last question is dropped

const map_in = () => document.querySelector('#ris-examples .ris-tile')?.dataset.collection;
const map_seen = () => mapped.getClientRects().length > 0;
const counted = (count, one = 'picture', many = `${one}s`) => `${count.toLocaleString('en')} ${count === 1 ? one : many}`;

function map_fault(sentence) {
  const fault = mapped.querySelector('.ris-fault');
  fault.hidden = !sentence;
  fault.textContent = sentence;
}
async function answer(place, options) {
  let reply;
  try { reply = await fetch(place, options); } catch { throw new Error('The server cannot be reached.'); }
  if (!reply.ok) throw new Error(reason(await reply.text()) ?? `The server answered ${reply.status}.`);
  return reply;
}
const send_ids = (name, points) => answer(`map/${encodeURIComponent(world.name)}/${name}`, {
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify({ ids: points.map((point) => world.ids[point]) }),
});

// What the server has of a collection; numbers that are there already are not read again.
async function read_world(name, engine) {
  const place = `map/${encodeURIComponent(name)}`;
  const facts = await (await answer(`${place}?${new URLSearchParams({ engine })}`)).json();
  const count = facts.count;
  const same = world?.facts.points === facts.points ? world : null;
  const next = same ? { ...same, facts } : { name, facts, count, scores: null };
  next.most = facts.lists ? Math.max(1, ...facts.lists.sizes) : 1;
  if (!same) {
    const numbers = await (await answer(facts.points)).arrayBuffer();
    next.ids = new Uint32Array(numbers, 0, count);
    next.x = new Float32Array(numbers, 4 * count, count);
    next.y = new Float32Array(numbers, 8 * count, count);
    next.label = new Uint8Array(numbers, 12 * count, count);
    next.point_of = new Map(Array.from(next.ids, (id, point) => [id, point]));
  }
  if (!facts.lists) next.list = null;
  else if (next.list === undefined || same?.facts.lists?.numbers !== facts.lists.numbers) {
    next.list = new Int32Array(await (await answer(facts.lists.numbers)).arrayBuffer());
  }
  return next;
}

async function show_map() {
  const name = map_in();
  if (!name) return;
  const mine = ++map_turn;
  map_search = document.ris_map_search ? JSON.parse(document.ris_map_search) : null;
  map_fault('');
  if (world?.name !== name) part('told').textContent = 'Making the map: all pictures are looked at once, which takes a while in a large collection.';
  mapped.setAttribute('aria-busy', 'true');
  try {
    const next = await read_world(name, map_search?.engine ?? '');
    if (mine !== map_turn) return;
    if (next.ids !== world?.ids) { chosen_points = []; forget_tiles(); }
    if (next.searched !== document.ris_map_search) next.scores = null; // of an earlier query
    next.searched = document.ris_map_search;
    world = next;
    show_controls();
    await draw_points();
    if (map_seen()) tell_map();
  } catch (error) {
    if (mine === map_turn) map_fault(error.message);
  } finally {
    if (mine === map_turn) mapped.removeAttribute('aria-busy');
  }
}

function show_controls() {
  const { lists } = world.facts;
  const colour = mapped.querySelector('[data-colour]');
  colour.querySelector('[value=list]').disabled = !lists;
  colour.querySelector('[value=score]').disabled = !map_search?.can_score;
  if (colour.selectedOptions[0].disabled || (colour.value === 'label' && !world.facts.labels.length)) {
    colour.value = world.facts.labels.length || !lists ? 'label' : 'list';
  }
  part('with-lists').hidden = !lists;
  show_lists();
  show_selected();
}

// All that the points show, in sentences.
function tell_map() {
  const { lists, without_lists: without } = world.facts;
  const said = [`${counted(world.count)} of ${world.name}.`];
  if (!mapped.dataset.drawn) said.push(NOT_DRAWN);
  if (map_search) {
    const hits = map_search.hits.filter(([id]) => world.point_of.has(id)).length;
    const drawn = [];
    if (map_search.place) drawn.push('the query (a cross)');
    drawn.push(`its ${counted(hits, 'hit')} (rings)`);
    if (map_search.probed.length) drawn.push(`the ${counted(map_search.probed.length, 'list')} that it probed (filled circles)`);
    said.push(`The last search is drawn in: ${drawn.join(', ').replace(/, ([^,]*)$/, ' and $1')}.`);
    if (!map_search.place) said.push('It was not made with one picture, so the query itself has no place here.');
    else if (map_search.compares_all) said.push('It compared all pictures, and probed no lists.');
  } else said.push('What is searched next is drawn in here.');
  said.push(lists ? `Each circle is a list of the index ${lists.title}; a click on one opens its pictures in Browse.` : without);
  part('told').textContent = said.join(' ');
}

// The lists for those who do not see or hit the circles.
function show_lists() {
  const { lists } = world.facts;
  const box = part('lists');
  box.hidden = !lists;
  if (!lists) return;
  box.querySelector('summary').textContent = `The ${counted(lists.sizes.length, 'list')} of the index ${lists.title}`;
  const probed = new Set(map_search?.engine === lists.engine ? map_search.probed : []);
  const order = [...lists.sizes.keys()].sort((a, b) => probed.has(b) - probed.has(a) || a - b);
  box.querySelector('div').replaceChildren(...order.map((number) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.dataset.list = number;
    button.disabled = !lists.sizes[number];
    button.textContent = `List ${number}: ${counted(lists.sizes[number])}${probed.has(number) ? ', probed' : ''}`;
    button.setAttribute('aria-label', `${button.textContent}. Open in Browse`);
    return button;
  }));
}

// Into Browse: by the address of a list, or with what is selected here.
function to_browse(said) {
  const address = new URL(location.href);
  for (const name of [...browse_names, 'view']) address.searchParams.delete(name);
  for (const [name, value] of new URLSearchParams(said)) address.searchParams.append(name, value);
  address.searchParams.set('in', world.name);
  history.pushState(null, '', address);
  trigger('browse');
}
const open_list = (number) => to_browse(world.facts.lists.addresses[number]);

async function open_selected() {
  if (!chosen_points.length) return;
  try {
    const pictures = await (await send_ids('contents', chosen_points.slice(0, MOST_SELECTED))).json();
    document.ris_selected = { collection: world.name, pictures };
  } catch (error) { return map_fault(error.message); }
  document.dispatchEvent(new Event('ris-select'));
  to_browse('tab=browse');
}
function show_selected() {
  const bar = part('selection');
  const count = chosen_points.length;
  bar.hidden = !count;
  const most = count > MOST_SELECTED ? `; Browse takes the first ${MOST_SELECTED.toLocaleString('en')}` : '';
  bar.querySelector('[role=status]').textContent = count ? `${counted(count)} selected${most}` : '';
}
function choose_points(points) { chosen_points = points; show_selected(); }

mapped.addEventListener('click', ({ target }) => {
  const button = target.closest('button');
  if (!button) return;
  if (button.dataset.list) open_list(Number(button.dataset.list));
  if (button.dataset.zoom) zoom_map(button.dataset.zoom);
  if ('openSelected' in button.dataset) open_selected();
  if ('selectNone' in button.dataset) { clear_points(); part('stage').focus(); }
  if (button.dataset.mode) {
    for (const each of mapped.querySelectorAll('[data-mode]')) each.setAttribute('aria-pressed', String(each === button));
    set_mode(button.dataset.mode);
  }
});
mapped.addEventListener('change', ({ target }) => {
  if (target.matches('[data-lists]')) draw_over();
  if (target.matches('[data-colour]')) draw_points();
});
part('stage').addEventListener('keydown', (event) => {
  if (event.target !== part('stage') || event.ctrlKey || event.metaKey || event.altKey || !mapped.dataset.drawn) return;
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
  const zoom = { '+': 'in', '=': 'in', '-': 'out', 0: 'whole' }[event.key];
  if (step) move_map(...step);
  else if (zoom) zoom_map(zoom);
  else if (event.key === 'Enter') open_selected();
  else if (event.key === 'Escape') clear_points();
  else if (event.key.toLowerCase() === 'a') select_in_view();
  else return;
  event.preventDefault();
});

// Likeness to the query takes a look at all vectors, and is asked for when it is wanted.
let shades_wanted = null;
const read_scores = () => new Promise((resolve) => { shades_wanted = resolve; ask('score'); });
document.addEventListener('ris-failed', () => shades_wanted?.());
document.addEventListener('ris-map-scores', ({ detail }) => {
  if (!detail || !world) return;
  const told = JSON.parse(detail);
  const shades = Uint8Array.from(atob(told.shades), (letter) => letter.charCodeAt(0));
  if (shades.length === world.count) world.scores = { ...told, shades };
  shades_wanted?.();
});

document.addEventListener('ris-map', show_map);
document.addEventListener('ris-changed', () => {
  if (!map_seen() || map_in() === world?.name) return;
  document.ris_map_search = '';
  show_map();
});
