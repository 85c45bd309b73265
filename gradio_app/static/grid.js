// A grid of pictures (results, gallery, examples): enlarge, do something with one. Listeners sit on
// `element`, which stays; the tiles in it come and go. Needs the one <dialog> that the first grid of the page makes.
// A button with data-act triggers that event for the picture: 'pick' (search with it), 'inside' (search a part of it),
// 'explain' (why it was found). Needs said.js.
const act = (name, tile) => ask(name, { collection: tile.dataset.collection, id: Number(tile.dataset.id) });

function viewer() {
  let dialog = document.querySelector('dialog.ris-viewer');
  if (dialog) return dialog;
  dialog = document.createElement('dialog');
  dialog.className = 'ris-viewer';
  dialog.setAttribute('aria-label', 'Enlarged picture');
  dialog.innerHTML =
    '<div class="ris-viewer-stage"><img alt=""></div><section class="ris-said-of" tabindex="-1" ' +
    'aria-label="Words of this picture" hidden></section><div class="ris-viewer-bar"><p></p><span>' +
    '<button type="button" data-step="-1" aria-label="Previous picture">‹</button>' +
    '<button type="button" data-step="1" aria-label="Next picture">›</button>' +
    '<a download>Download original</a><button type="button" data-act="inside">Search inside this</button>' +
    '<button type="button" class="ris-viewer-use" data-act="pick">Search with this</button></span>' +
    '<details class="ris-details"><summary>Details of the file</summary><div></div></details></div>' +
    '<button type="button" class="ris-viewer-close" aria-label="Close">✕</button>';
  const show_said = said_panel(dialog.querySelector('.ris-said-of'));
  const show_details = details_panel(dialog.querySelector('.ris-details'));
  // The viewer has an address of its own, so that Back closes it; `kept` is one that the address asked for.
  dialog.show_tile = (tile, act, kept = false) => {
    const address = new URL(location.href);
    address.searchParams.set('view', tile.dataset.id);
    address.searchParams.set('in', tile.dataset.collection);
    if (dialog.open) history.replaceState(history.state, '', address);
    else if (!kept) history.pushState({ ris_viewer: true }, '', address);
    dialog.tile = tile;
    dialog.act = act;
    const img = dialog.querySelector('.ris-viewer-stage img');
    img.src = tile.dataset.view;
    img.alt = tile.dataset.title;
    dialog.querySelector('.ris-viewer-bar p').textContent = tile.dataset.title;
    dialog.querySelector('.ris-viewer-bar a').href = tile.dataset.original;
    for (const button of dialog.querySelectorAll('[data-step]')) button.disabled = !dialog.neighbour(Number(button.dataset.step));
    show_said(tile);
    show_details(tile);
    if (!dialog.open) dialog.showModal();
  };
  dialog.neighbour = (step) => {
    const next = (tile) => (step < 0 ? tile.previousElementSibling : tile.nextElementSibling);
    let other = next(dialog.tile);
    while (other?.hidden) other = next(other); // folded away
    return other && other.matches('.ris-tile') ? other : null;
  };
  // Leave the viewer by the step in the history that it was, and then do something.
  dialog.leave = (then = () => {}) => {
    dialog.close();
    if (history.state?.ris_viewer) {
      addEventListener('popstate', then, { once: true });
      history.back();
    } else {
      const address = new URL(location.href);
      address.searchParams.delete('view');
      history.replaceState(null, '', address);
      then();
    }
  };
  dialog.addEventListener('cancel', (event) => { event.preventDefault(); dialog.leave(); }); // Escape
  const step = (by) => { const other = dialog.neighbour(by); if (other) dialog.show_tile(other, dialog.act); };
  dialog.addEventListener('click', (event) => {
    const button = event.target.closest('button');
    if (button && button.dataset.step) step(Number(button.dataset.step));
    else if (button && button.dataset.act) dialog.leave(() => dialog.act(button.dataset.act, dialog.tile));
    else if (event.target === dialog || (button && button.matches('.ris-viewer-close'))) dialog.leave();
    else if (event.target.matches('.ris-viewer-stage')) dialog.leave();
  });
  dialog.addEventListener('keydown', (event) => {
    if (event.key === 'ArrowLeft') step(-1);
    if (event.key === 'ArrowRight') step(1);
  });
  document.body.append(dialog);
  return dialog;
}

// A picture of a grid is dropped on the page (dropping.js): one grid, that is always there, answers.
document.addEventListener('ris-pick', ({ detail }) => { if (element.closest('#ris-results')) ask('pick', detail); });

// An address asks for a picture to be enlarged, or for none.
document.addEventListener('ris-view', ({ detail: id }) => {
  const open = document.querySelector('dialog.ris-viewer[open]');
  if (!id) open?.close();
  else if (!open || open.tile.dataset.id !== id) {
    const tile = element.querySelector(`.ris-tile[data-id="${CSS.escape(id)}"][data-view]`);
    if (tile) viewer().show_tile(tile, act, true);
  }
});

// A hit is judged: reading.js writes it into the words. Who uses the keyboard goes on where they were.
let judging = null;
function judge(tile, button) {
  judging = { id: tile.dataset.id, verdict: button.dataset.judge, place: [...element.querySelectorAll('.ris-tile')].indexOf(tile) };
  document.dispatchEvent(new CustomEvent('ris-judge', { detail: { id: Number(tile.dataset.id), verdict: button.dataset.judge } }));
}
document.addEventListener('ris-searched', () => {
  if (!judging) return;
  const { id, verdict, place } = judging;
  judging = null;
  const tiles = [...element.querySelectorAll('.ris-tile')];
  const tile = (verdict === 'more' && tiles.find((each) => each.dataset.id === id)) || tiles[Math.min(place, tiles.length - 1)];
  tile?.querySelector(`[data-judge=${verdict}]`)?.focus({ preventScroll: true });
});

// Who scrolls on to the button for more results gets them; it stays there for the keyboard and for screen readers.
let is_scrolling = false;
for (const kind of ['wheel', 'touchmove']) addEventListener(kind, () => { is_scrolling = true; }, { passive: true });
for (const event of ['ris-searched', 'ris-restored']) document.addEventListener(event, () => { is_scrolling = false; });
const reached = new IntersectionObserver((entries) => {
  if (is_scrolling && entries.some((entry) => entry.isIntersecting)) more(element.querySelector('.ris-more[data-endless]'));
}, { rootMargin: '0px 0px 300px' });
function more(button) {
  if (!button || button.disabled) return;
  button.disabled = true; // one page at a time; the answer brings another button
  trigger('more');
}
document.addEventListener('ris-failed', () => { const button = element.querySelector('.ris-more'); if (button) button.disabled = false; });
new MutationObserver(() => {
  reached.disconnect();
  const button = element.querySelector('.ris-more');
  if (!button) return;
  button.disabled = false;
  reached.observe(button);
}).observe(element, { childList: true, subtree: true }); // Gradio morphs what is there
addEventListener('scroll', () => { // also where the button was in sight before anyone scrolled
  const button = is_scrolling && element.querySelector('.ris-more[data-endless]');
  if (button && button.getBoundingClientRect().top < innerHeight + 300) more(button);
}, { passive: true });

element.addEventListener('click', (event) => {
  const tile = event.target.closest('.ris-tile');
  const button = event.target.closest('[data-act]');
  if (tile && button) act(button.dataset.act, tile);
  else if (tile && event.target.closest('.ris-open')) viewer().show_tile(tile, act);
  if (tile && event.target.closest('.ris-add')) document.dispatchEvent(new CustomEvent('ris-add', { detail: Number(tile.dataset.id) }));
  const verdict = event.target.closest('[data-judge]');
  if (tile && verdict) judge(tile, verdict);
  more(event.target.closest('.ris-more'));
  if (event.target.closest('.ris-again')) document.dispatchEvent(new Event('ris-go'));
  const unfold = event.target.closest('.ris-unfold');
  if (unfold) {
    const is_open = unfold.getAttribute('aria-expanded') === 'true';
    unfold.setAttribute('aria-expanded', !is_open);
    for (let each = tile.nextElementSibling; each?.dataset.folded !== undefined; each = each.nextElementSibling) each.hidden = is_open;
  }
  const recent = event.target.closest('[data-recent]');
  if (recent) ask('recall', { token: recent.dataset.recent });
});
