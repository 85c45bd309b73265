// The Manage tab: send a zip file, ask before a collection is deleted, cancel work. One script for its three parts.
const zip_row = (text, share) => {
  const row = element.querySelector('.ris-zip');
  row.querySelector('p').textContent = text;
  const bar = row.querySelector('progress');
  bar.hidden = share === null;
  bar.value = share ?? 0;
};

// Straight to a route of its own and as it is: Gradio's upload is capped at the size of a picture.
function send(file) {
  if (file.size > Number(element.querySelector('.ris-zip').dataset.max)) {
    zip_row(`${file.name} is too large.`, null);
    return;
  }
  const request = new XMLHttpRequest();
  request.open('PUT', 'collections/upload');
  request.upload.addEventListener('progress', (event) => zip_row(`Sending ${file.name} …`, event.loaded / file.size));
  request.addEventListener('load', () => {
    if (request.status === 200) {
      zip_row(`${file.name} is ready.`, null);
      trigger('sent', { token: request.responseText });
    } else {
      let detail = '';
      try { detail = JSON.parse(request.responseText).detail; } catch { /* no answer of ours */ }
      zip_row(detail || `${file.name} could not be sent.`, null);
    }
  });
  request.addEventListener('error', () => zip_row(`${file.name} could not be sent.`, null));
  request.send(file);
}

function confirm_delete(item) {
  const dialog = document.createElement('dialog');
  dialog.className = 'ris-confirm';
  dialog.innerHTML =
    '<form method="dialog"><h2></h2><p></p><label>Type its name to delete it <input autocomplete="off"></label>' +
    '<div><button value="">Keep it</button><button value="delete" class="ris-danger" disabled></button></div></form>';
  dialog.querySelector('h2').textContent = `Delete the collection “${item.dataset.name}”?`;
  dialog.querySelector('p').textContent = item.dataset.loss;
  dialog.querySelector('.ris-danger').textContent = `Delete “${item.dataset.name}”`;
  dialog.querySelector('input').addEventListener('input', ({ target }) => {
    dialog.querySelector('.ris-danger').disabled = target.value.trim() !== item.dataset.name;
  });
  dialog.querySelector('input').addEventListener('keydown', (event) => { if (event.key === 'Enter') event.preventDefault(); });
  dialog.addEventListener('close', () => {
    if (dialog.returnValue === 'delete') trigger('remove', { name: item.dataset.name });
    dialog.remove();
  });
  document.body.append(dialog);
  dialog.showModal();
}

document.addEventListener('ris-zip-taken', () => {
  const input = element.querySelector('.ris-zip input');
  if (!input) return;
  input.value = '';
  zip_row(element.querySelector('.ris-zip').dataset.hint, null);
});
// A table of what is said: taken in as one edit, which the page can take back.
async function take_in(input) {
  const item = input.closest('.ris-shelf-item');
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

element.addEventListener('change', (event) => {
  if (event.target.matches('.ris-take-in') && event.target.files[0]) take_in(event.target);
  if (event.target.matches('.ris-zip input') && event.target.files[0]) send(event.target.files[0]);
});
element.addEventListener('click', (event) => {
  const item = event.target.closest('.ris-shelf-item');
  if (item && event.target.closest('.ris-sync')) trigger('sync', { name: item.dataset.name });
  if (item && event.target.closest('.ris-delete')) confirm_delete(item);
  if (event.target.closest('.ris-cancel')) trigger('cancel');
});
