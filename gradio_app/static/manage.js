// The Manage tab: work under way and the collections there are. What cannot be made again goes only after its name was
// typed. One script for its two parts.
const item_of = (node) => node.closest('.ris-shelf-item');

// Ask before something is lost: the name is typed, or where it can be taken back a button is enough.
function confirm({ title, text, action, name }, then) {
  const dialog = document.createElement('dialog');
  dialog.className = 'ris-confirm';
  dialog.innerHTML =
    '<form method="dialog"><h2></h2><p></p><label hidden><span></span> <input autocomplete="off"></label>' +
    '<div><button value="">Keep it</button><button value="do" class="ris-danger"></button></div></form>';
  dialog.querySelector('h2').textContent = title;
  dialog.querySelector('p').textContent = text;
  const button = dialog.querySelector('.ris-danger');
  button.textContent = action;
  if (name) {
    dialog.querySelector('label').hidden = false;
    dialog.querySelector('label span').textContent = `Type ${name} to go on`;
    button.disabled = true;
    const input = dialog.querySelector('input');
    input.addEventListener('input', () => { button.disabled = input.value.trim() !== name; });
    input.addEventListener('keydown', (event) => { if (event.key === 'Enter') event.preventDefault(); });
  }
  dialog.addEventListener('close', () => {
    if (dialog.returnValue === 'do') then();
    dialog.remove();
  });
  document.body.append(dialog);
  dialog.showModal();
}

function confirm_delete(item) {
  const { name, loss } = item.dataset;
  confirm({ title: `Delete the collection “${name}”?`, text: loss, action: `Delete “${name}”`, name }, () => trigger('remove', { name }));
}

// A table of what is said: taken in as one edit, which the page can take back.
async function take_in(input) {
  const item = item_of(input);
  const told = item.querySelector('.ris-taken');
  const [file] = input.files;
  told.hidden = false;
  told.textContent = `Taking in ${file.name} …`;
  const kind = file.name.toLowerCase().endsWith('.csv') ? 'csv' : 'jsonl';
  try {
    const reply = await fetch(`annotations/${encodeURIComponent(item.dataset.name)}?kind=${kind}`, { method: 'PUT', body: file });
    const answer = await reply.json();
    told.textContent = reply.ok ? answer.told : answer.detail;
  } catch { told.textContent = `${file.name} could not be sent.`; }
  input.value = '';
}

// The fields of a collection and what is said in it: drawn by the server, also after a change.
async function kept(item, change) {
  const place = item.querySelector('.ris-stored > div');
  const options = change
    ? { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(change) }
    : { cache: 'no-store' };
  let reply, text;
  try {
    reply = await fetch(`annotations/${encodeURIComponent(item.dataset.name)}/kept`, options);
    text = await reply.text();
  } catch { return kept_fault(place, 'The server cannot be reached.'); }
  if (reply.ok) return void (place.innerHTML = text);
  let detail;
  try { detail = JSON.parse(text).detail; } catch { /* no answer of ours */ }
  kept_fault(place, typeof detail === 'string' ? detail : `The server answered ${reply.status}.`);
}

function kept_fault(place, sentence) {
  if (!place.querySelector('.ris-stored-fault')) place.innerHTML = '<p class="ris-stored-fault" role="alert"></p>';
  const fault = place.querySelector('.ris-stored-fault');
  fault.hidden = false;
  fault.textContent = sentence;
}

function drop_field(button) {
  const { field, count } = button.dataset;
  const drop = () => kept(item_of(button), { do: 'drop', name: field });
  if (count === '0') return drop();
  const pictures = `${Number(count).toLocaleString()} picture${count === '1' ? '' : 's'}`;
  const text = `Its values go with it, of ${pictures}. The Undo button below brings it back, as long as it is the last edit.`;
  confirm({ title: `Drop the field “${field}”?`, text, action: `Drop “${field}”` }, drop);
}

function reset_said(item) {
  const { name } = item.dataset;
  const text = 'Captions, tags, values of fields, favourites, albums, learned tags and decisions about duplicates go, whoever said them. ' +
    'Pictures and fields stay. It is kept as one edit: the Undo button brings all of it back, as long as it is the last edit.';
  confirm({ title: `Reset what is said in “${name}”?`, text, action: 'Reset it', name }, () => kept(item, { do: 'reset', name }));
}

element.addEventListener('change', (event) => {
  if (event.target.matches('.ris-take-in') && event.target.files[0]) take_in(event.target);
});
element.addEventListener('toggle', ({ target }) => {
  if (!target.matches?.('.ris-stored')) return;
  const item = item_of(target);
  if (!target.open) return void opened.delete(item.dataset.name);
  opened.set(item.dataset.name, target);
  kept(item);
}, true);
// The shelf is drawn anew whenever a collection changes: what was open, and what is being typed there, stays.
const opened = new Map();
new MutationObserver(() => {
  for (const [name, details] of opened) {
    if (details.isConnected) continue;
    const item = [...element.querySelectorAll('.ris-shelf-item')].find((each) => each.dataset.name === name);
    const closed = item?.querySelector('.ris-stored');
    if (!closed) continue;
    closed.replaceWith(details);
    if (![...details.querySelectorAll('input')].some((input) => input.value)) kept(item);
  }
}).observe(element, { childList: true, subtree: true });
element.addEventListener('submit', (event) => {
  if (!event.target.matches('.ris-make-field')) return;
  event.preventDefault();
  const { name, kind } = event.target.elements;
  kept(item_of(event.target), { do: 'make', name: name.value, kind: kind.value });
});
element.addEventListener('click', ({ target }) => {
  const item = item_of(target);
  const on = (wanted) => target.closest(wanted);
  if (item && on('.ris-sync')) trigger('sync', { name: item.dataset.name });
  if (item && on('.ris-delete')) confirm_delete(item);
  if (item && on('.ris-drop-field')) drop_field(on('.ris-drop-field'));
  if (item && on('.ris-reset-said')) reset_said(item);
  if (item && on('.ris-stored-undo')) kept(item, { do: 'undo', edit: Number(on('.ris-stored-undo').dataset.edit) });
  if (on('.ris-browse-it')) trigger('browse', { name: on('.ris-browse-it').dataset.name });
  if (on('.ris-cancel')) trigger('cancel');
});
// What was opened before this script was there.
element.querySelectorAll('.ris-stored[open]').forEach((details) => {
  opened.set(item_of(details).dataset.name, details);
  kept(item_of(details));
});
