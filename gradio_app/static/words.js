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

// The language model takes seconds to load: it begins to when someone is about to type.
let warmed;
field.addEventListener('focus', () => {
  if (warmed === collection()) return;
  warmed = collection();
  trigger('warm');
});

// The address: `q` is what was typed, `in` the collection, `kind` how much neighbours count, where that is not as usual.
// Who opens it finds the same.
function keep(...entries) {
  const address = new URL(location.href);
  for (const [name, value] of entries) {
    if (value) address.searchParams.set(name, value);
    else address.searchParams.delete(name);
  }
  if (address.href !== location.href) history.pushState(null, '', address);
}
document.addEventListener('ris-searched', ({ detail: kind }) => {
  const words = field.value.trim();
  keep(['q', words], ['in', words && collection()], ['kind', kind]);
});
document.addEventListener('ris-reordered', ({ detail: kind }) => keep(['kind', kind]));
let wanted = null; // the collection that is waited for
function open_address() {
  const asked = new URLSearchParams(location.search);
  fill(asked.get('q') ?? '');
  wanted = field.value ? asked.get('in') ?? '' : null;
  const kind = asked.get('kind') ? Number(asked.get('kind')) : null;
  if (wanted !== null || kind !== null) trigger('opened', { collection: wanted ?? '', kind });
}
function opened() {
  if (wanted === null || (wanted && wanted !== collection())) return;
  wanted = null;
  go();
}
document.addEventListener('ris-opened', opened);
document.addEventListener('ris-changed', opened); // among other things when another collection is there
addEventListener('popstate', open_address);
if (document.ris_ready) open_address();
else document.addEventListener('ris-ready', open_address, { once: true });
