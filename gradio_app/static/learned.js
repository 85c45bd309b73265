// The Learned tags tab. The server sends the whole panel, also after a decision; what it refuses it says in a sentence.
// Needs grid.js, whose tiles these are.
const panel = element.querySelector('.ris-learned');
let chosen = '';
let shown = 0;
let learned_turn = 0; // an answer to what was asked before the last question is dropped

const learned_in = () => document.querySelector('#ris-examples .ris-tile')?.dataset.collection;

async function learned(change, then = () => {}) {
  const mine = ++learned_turn;
  const name = learned_in();
  if (!name) return panel.replaceChildren();
  const place = `learned/${encodeURIComponent(name)}`;
  let reply, text;
  try {
    reply = change
      ? await fetch(place, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ tag: chosen, shown, ...change }),
      })
      : await fetch(`${place}?${new URLSearchParams({ tag: chosen, shown })}`);
    text = await reply.text();
  } catch {
    return learned_fault('The server cannot be reached.');
  }
  if (!reply.ok) return learned_fault(reason(text) ?? `The server answered ${reply.status}.`);
  if (mine !== learned_turn) return;
  panel.innerHTML = text;
  chosen = panel.querySelector('section')?.dataset.tag ?? '';
  then();
}

function learned_fault(sentence) {
  if (!panel.querySelector('.ris-fault')) panel.innerHTML = '<p class="ris-fault" role="alert"></p>';
  const fault = panel.querySelector('.ris-fault');
  fault.hidden = false;
  fault.textContent = sentence;
}

const named = (tile) => ({ id: Number(tile.dataset.id), content: tile.dataset.content });

function decide(tile, verdict) {
  const place = [...panel.querySelectorAll('.ris-tile')].indexOf(tile);
  tile.classList.add('ris-decided');
  learned({ do: verdict, pictures: [named(tile)] }, () => {
    const tiles = [...panel.querySelectorAll('.ris-tile')];
    const next = tiles[Math.min(place, tiles.length - 1)]?.querySelector(`[data-decide=${verdict}]`);
    (next ?? panel.querySelector('section'))?.focus({ preventScroll: true });
  });
}

element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  const { decide: verdict, do: what, tag, find, more } = button.dataset;
  if (verdict) decide(button.closest('.ris-tile'), verdict);
  else if ('decideAll' in button.dataset) {
    learned({ do: 'confirm', pictures: [...panel.querySelectorAll('.ris-tile')].map(named) }, () => panel.querySelector('section')?.focus());
  } else if (what) {
    learned({ do: what, edit: Number(button.dataset.edit ?? 0) }, () => panel.querySelector('[data-do=undo]')?.focus());
  } else if (tag !== undefined) {
    [chosen, shown] = [tag, 0];
    learned(null, () => panel.querySelector('[data-tag][aria-pressed=true]')?.focus());
  } else if (find) {
    document.dispatchEvent(new CustomEvent('ris-words', { detail: find }));
    trigger('find');
  }
  else if (more) {
    shown = Number(more);
    const place = panel.querySelectorAll('.ris-tile').length;
    learned(null, () => panel.querySelectorAll('.ris-tile')[place]?.querySelector('.ris-open').focus());
  }
});

// The panel is drawn when it comes into sight, and anew when another collection is chosen, or words are edited in the
// viewer, once that is closed.
const is_seen = () => panel.getClientRects().length > 0;
let edited = false;
function look() {
  if (document.ris_learned !== undefined) [chosen, shown] = [document.ris_learned, 0];
  delete document.ris_learned;
  learned(null);
}
document.addEventListener('ris-learned', look);
document.addEventListener('ris-changed', () => { if (is_seen()) look(); });
document.addEventListener('ris-said', () => { edited = true; });
document.addEventListener('close', () => { if (edited && is_seen()) look(); edited = false; }, true);
look();
