// What was searched in this browser, newest first, and what was kept under a name. Both are addresses of the page, so one
// click brings all of a search back. They are kept by the browser alone: the server never learns of them.
const panel = element.querySelector('.ris-history');
const name_field = panel.querySelector('.ris-save input');
const REMEMBERED = 50;

function load(name) {
  try {
    const kept = JSON.parse(localStorage.getItem(name));
    return Array.isArray(kept) ? kept.filter((each) => typeof each?.address === 'string' && typeof each.said === 'string') : [];
  } catch { return []; }
}
function store(name, entries) {
  try { localStorage.setItem(name, JSON.stringify(entries)); } catch { /* the browser keeps nothing: then nothing is kept */ }
  show();
}
const without = (entries, address) => entries.filter((each) => each.address !== address);
function current() {
  const found = document.querySelector('#ris-results data');
  return found && { address: found.value, said: found.textContent, at: Date.now() };
}

const PARTS = { 'ris-saved': panel.querySelector('.ris-saved'), 'ris-history': panel.querySelector('.ris-searched') };
function line(name, { address, said, at }) {
  const item = document.createElement('li');
  const link = document.createElement('a');
  link.href = `?${address}`;
  link.textContent = said;
  link.title = at ? `${said}\n${new Date(at).toLocaleString()}` : said;
  const remove = document.createElement('button');
  remove.type = 'button';
  remove.textContent = '✕';
  remove.setAttribute('aria-label', `Forget ${said}`);
  remove.addEventListener('click', () => {
    const next = item.nextElementSibling ?? item.previousElementSibling;
    const place = next && [...item.parentElement.children].indexOf(next) - (next === item.nextElementSibling ? 1 : 0);
    store(name, without(load(name), address));
    (PARTS[name].children[place]?.querySelector('button') ?? panel.querySelector('summary')).focus();
  });
  item.append(link, remove);
  return item;
}
function show() {
  for (const [name, list] of Object.entries(PARTS)) {
    list.replaceChildren(...load(name).map((entry) => line(name, entry)));
    list.previousElementSibling.hidden = !list.children.length;
  }
  panel.querySelector('.ris-save').hidden = !current();
  panel.querySelector('.ris-none-yet').hidden = Boolean(current()) || Object.values(PARTS).some((list) => list.children.length);
}

panel.addEventListener('click', (event) => {
  const link = event.target.closest('a');
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return; // into a tab of its own
  event.preventDefault();
  document.dispatchEvent(new CustomEvent('ris-open-address', { detail: link.getAttribute('href').slice(1) }));
});
panel.querySelector('.ris-save').addEventListener('submit', (event) => {
  event.preventDefault();
  const now = current();
  if (!now) return;
  const entry = { address: now.address, said: name_field.value.trim() || now.said };
  name_field.value = '';
  store('ris-saved', [entry, ...without(load('ris-saved'), now.address)]);
});
document.addEventListener('ris-searched', () => {
  const now = current();
  if (now) store('ris-history', [now, ...without(load('ris-history'), now.address)].slice(0, REMEMBERED));
});
for (const event of ['ris-restored', 'ris-adjusted']) document.addEventListener(event, show);
addEventListener('storage', show); // another tab searched
panel.addEventListener('toggle', show);
show();
