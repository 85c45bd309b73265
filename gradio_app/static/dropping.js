// Whatever is dropped anywhere on the page, or pasted, is searched with: a file, a picture of another page, an address, a
// picture of a grid. Files go the way of an upload, through a field that is there whichever source is chosen. Manage
// takes what is dropped on it, and fields for text what is pasted into them.
const MINE = 'application/x-ris-picture';

function upload_file(files) {
  const file = [...files].find((f) => f.type.startsWith('image/')) ?? files[0];
  const input = document.querySelector('#ris-dropped input[type=file]');
  if (!file || !input) return false;
  const list = new DataTransfer();
  list.items.add(file);
  input.files = list.files;
  input.dispatchEvent(new Event('change', { bubbles: true }));
  return true;
}

// The address of a picture of another page: where the picture lies rather than where it links to.
function address_in(data) {
  const page = new DOMParser().parseFromString(data.getData('text/html'), 'text/html');
  const said = [page.querySelector('img')?.getAttribute('src'), data.getData('text/uri-list').split('\n')[0], data.getData('text/plain')];
  return said.map((each) => each?.trim() ?? '').find((each) => /^https?:\/\/\S+$/i.test(each));
}

function take(data) {
  const own = data.getData(MINE);
  if (own) document.dispatchEvent(new CustomEvent('ris-pick', { detail: JSON.parse(own) }));
  else if (upload_file(data.files)) { /* on its way */ }
  else {
    const address = address_in(data);
    if (!address) return false;
    document.dispatchEvent(new CustomEvent('ris-open', { detail: address }));
  }
  return true;
}

const kinds = ['Files', 'text/uri-list', MINE];
const is_ours = ({ target, dataTransfer }) =>
  kinds.some((kind) => dataTransfer?.types.includes(kind)) && !target.closest?.('input, textarea, #ris-manage, dialog');
let over = 0; // until it is no longer dragged over the page, where nothing tells of the end
function hover(is_over) {
  clearTimeout(over);
  document.body.classList.toggle('ris-dropping', is_over);
  if (is_over) over = setTimeout(hover, 300, false);
}
addEventListener('dragover', (event) => {
  if (!is_ours(event)) return;
  event.preventDefault();
  hover(true);
}, true);
addEventListener('drop', (event) => {
  hover(false);
  if (!is_ours(event)) return;
  event.preventDefault(); // or the browser would leave the page for what was dropped
  event.stopPropagation(); // or Gradio's own zone would upload it once more
  take(event.dataTransfer);
}, true);
addEventListener('paste', (event) => {
  const in_text = event.target.closest?.('input, textarea, [contenteditable]');
  if (in_text && !event.clipboardData.files.length) return;
  if (take(event.clipboardData)) event.preventDefault();
}, true);
addEventListener('dragstart', (event) => {
  const tile = event.target.closest?.('.ris-tile');
  if (tile) event.dataTransfer.setData(MINE, JSON.stringify({ collection: tile.dataset.collection, id: Number(tile.dataset.id) }));
}, true);
document.ris_ready = true;
document.dispatchEvent(new Event('ris-ready'));
