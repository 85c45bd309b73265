// The Duplicates tab. The server sends the whole panel, also after a decision; what it refuses it says in a sentence.
// Needs grid.js, whose tiles these are.
const twins = element.querySelector('.ris-duplicates');
const wanted = { show: 'open', shown: 0, alike: false };
let twin_turn = 0; // an answer to what was asked before the last question is dropped
let twin_timer = 0;

const twins_in = () => document.querySelector('#ris-examples .ris-tile')?.dataset.collection;
const twins_seen = () => twins.getClientRects().length > 0;

async function tell_twins(change, then = () => {}) {
  const mine = ++twin_turn;
  clearTimeout(twin_timer);
  const name = twins_in();
  if (!name) return twins.replaceChildren();
  const place = `duplicates/${encodeURIComponent(name)}`;
  let reply, text;
  try {
    reply = change
      ? await fetch(place, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ ...wanted, ...change }),
      })
      : await fetch(`${place}?${new URLSearchParams(wanted)}`);
    text = await reply.text();
  } catch {
    return twin_fault('The server cannot be reached.');
  }
  if (mine !== twin_turn) return;
  if (!reply.ok) return twin_fault(reason(text) ?? `The server answered ${reply.status}.`);
  twins.innerHTML = text;
  if (change && change.do !== 'closer') document.dispatchEvent(new Event('ris-said'));
  then();
  if (twins.querySelector('[data-working]')) twin_timer = setTimeout(() => { if (twins_seen()) tell_twins(null); }, 1500);
}

function twin_fault(sentence) {
  if (!twins.querySelector('.ris-fault')) twins.innerHTML = '<p class="ris-fault" role="alert"></p>';
  const fault = twins.querySelector('.ris-fault');
  fault.hidden = false;
  fault.textContent = sentence;
}

const named_twin = (tile) => ({ id: Number(tile.dataset.id), content: tile.dataset.content });
const sections = () => [...twins.querySelectorAll('.ris-twins')];

// The keyboard goes on at the group that takes the place of the one that was decided about.
function decide_twins(section, verdict, first = null) {
  const place = sections().indexOf(section);
  const tiles = [...section.querySelectorAll('.ris-tile')];
  const pictures = (first ? [first, ...tiles.filter((tile) => tile !== first)] : tiles).map(named_twin);
  section.classList.add('ris-decided');
  tell_twins({ do: verdict, pictures }, () => {
    const left = sections();
    (left[Math.min(place, left.length - 1)] ?? twins.querySelector('[data-show][aria-pressed=true]'))?.focus();
  });
}

element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button || !twins.contains(button)) return;
  const section = button.closest('.ris-twins');
  const { do: what, show, more, edit, count } = button.dataset;
  if ('keep' in button.dataset) decide_twins(section, 'keep', button.closest('.ris-tile'));
  else if ('takeBack' in button.dataset) {
    tell_twins({ do: 'take_back', pictures: [named_twin(button.closest('.ris-tile'))] }, () => twins.querySelector('[data-show][aria-pressed=true]').focus());
  } else if (section && what) decide_twins(section, what);
  else if (what) tell_twins({ do: what, edit: Number(edit ?? 0), count: Number(count ?? 0) }, () => (twins.querySelector('[data-do=undo]') ?? twins.querySelector('[data-show]'))?.focus());
  else if (show) {
    Object.assign(wanted, { show, shown: 0 });
    tell_twins(null, () => twins.querySelector(`[data-show=${show}]`)?.focus());
  } else if (more) {
    wanted.shown = Number(more);
    const place = sections().length;
    tell_twins(null, () => sections()[place]?.focus());
  }
});
element.addEventListener('change', (event) => {
  if (!event.target.matches('[data-alike]')) return;
  Object.assign(wanted, { alike: event.target.checked, shown: 0 });
  tell_twins(null, () => twins.querySelector('[data-alike]')?.focus());
});

document.addEventListener('keydown', (event) => {
  if (!twins_seen() || event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
  if (event.target.closest?.('input:not([type=checkbox]), textarea, select, [contenteditable]')) return;
  const all = sections();
  const here = document.activeElement?.closest?.('.ris-twins');
  const place = all.indexOf(here);
  const key = event.key.toLowerCase();
  if (key === 'j' || key === 'k') {
    const next = all[Math.min(Math.max(place + (key === 'j' ? 1 : -1), 0), all.length - 1)];
    next?.focus();
    next?.scrollIntoView({ block: 'nearest' });
  } else if (key === 'u') twins.querySelector('[data-do=undo]')?.click();
  else if (here && key === 'n') here.querySelector('[data-do=different]')?.click();
  else if (here && key === 'l') here.querySelector('[data-do=later]')?.click();
  else if (here && /^[1-9]$/.test(key)) here.querySelectorAll('[data-keep]')[Number(key) - 1]?.click();
  else return;
  event.preventDefault();
});

// Drawn when it comes into sight, and anew when another collection is chosen or the collection has changed.
document.addEventListener('ris-duplicates', () => tell_twins(null));
document.addEventListener('ris-changed', () => { Object.assign(wanted, { show: 'open', shown: 0 }); if (twins_seen()) tell_twins(null); });
