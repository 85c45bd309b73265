// What becomes a collection, on its way to the server: a zip file, or pictures and folders file by file, each to a route of
// our own and as it is (Gradio's upload is capped at the size of a picture). And folders of the server, while they are typed.
const AT_A_TIME = 4;
const NAMED_AT_A_TIME = 1000;
let sending = null; // an AbortController, while something is sent

const field = () => element.querySelector('.ris-send');
function tell(text, share = null) {
  field().querySelector('[role=status]').textContent = text;
  const bar = field().querySelector('progress');
  bar.hidden = share === null;
  bar.value = share ?? 0;
  field().querySelector('.ris-send-stop').hidden = share === null;
}

const megabytes = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3).toLocaleString()} kB` : `${Math.round(bytes / 1e6).toLocaleString()} MB`);
const counted = (count, what) => `${count.toLocaleString()} ${what}${count === 1 ? '' : 's'}`;

async function fetched(place, options) {
  let reply;
  try {
    reply = await fetch(place, { signal: sending.signal, ...options });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Error('The server cannot be reached.');
  }
  if (reply.ok) return reply;
  const { detail } = await reply.json().catch(() => ({}));
  throw new Error(typeof detail === 'string' ? detail : `The server answered ${reply.status}.`);
}

async function send(files) {
  if (!files.length) return;
  sending?.abort();
  const mine = (sending = new AbortController());
  field().dataset.token = '';
  try {
    const token = files.length === 1 && /\.zip$/i.test(files[0].path) ? await send_zip(files[0].file) : await send_files(files);
    if (mine !== sending) return;
    sending = null;
    if (token) field().dataset.token = token; // which the button sends with the form
  } catch (error) {
    mine.abort(); // what is still on its way stops, and what was sent goes
    if (mine !== sending) return;
    sending = null;
    tell(error.name === 'AbortError' ? field().dataset.hint : `${error.message} Choose them again.`);
  }
}

function send_zip(file) {
  if (file.size > Number(field().dataset.max)) throw new Error(`${file.name} is too large.`);
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest(); // fetch does not say how much has been sent
    sending.signal.addEventListener('abort', () => request.abort());
    request.open('PUT', 'collections/upload');
    request.upload.addEventListener('progress', (event) => tell(`Sending ${file.name} …`, event.loaded / file.size));
    request.addEventListener('load', () => {
      if (request.status === 200) {
        tell(`${file.name} is ready.`);
        return done(request.responseText);
      }
      let detail = '';
      try { detail = JSON.parse(request.responseText).detail; } catch { /* no answer of ours */ }
      failed(new Error(detail || `${file.name} could not be sent.`));
    });
    request.addEventListener('error', () => failed(new Error(`${file.name} could not be sent.`)));
    request.addEventListener('abort', () => failed(new DOMException('', 'AbortError')));
    request.send(file);
  });
}

async function send_files(files) {
  const { signal } = sending;
  const token = await (await fetched('collections/uploads', { method: 'POST' })).text();
  const place = `collections/uploads/${token}`;
  signal.addEventListener('abort', () => fetch(place, { method: 'DELETE' }).catch(() => {}));
  const wanted = [];
  for (let start = 0; start < files.length; start += NAMED_AT_A_TIME) {
    const some = files.slice(start, start + NAMED_AT_A_TIME);
    tell(`Looking at ${counted(files.length, 'file')} …`, start / files.length);
    const body = JSON.stringify({ files: some.map(({ path, file }) => [path, file.size]) });
    const reply = await fetched(place, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body });
    (await reply.json()).forEach((number, at) => { if (number !== null) wanted.push({ ...some[at], number }); });
  }
  if (!wanted.length) throw new Error('There is no picture among them that could be read here.');
  const total = wanted.reduce((sum, { file }) => sum + file.size, 0);
  let count = 0, bytes = 0;
  const rest = [...wanted].reverse();
  const worker = async () => {
    for (let next = rest.pop(); next; next = rest.pop()) {
      await fetched(`${place}/${next.number}`, { method: 'PUT', body: next.file });
      signal.throwIfAborted();
      count += 1;
      bytes += next.file.size;
      tell(`Sent ${count.toLocaleString()} of ${counted(wanted.length, 'file')} …`, bytes / (total || 1));
    }
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, worker));
  const others = files.length - wanted.length;
  tell(`${counted(wanted.length, 'file')} (${megabytes(total)}) ${wanted.length === 1 ? 'is' : 'are'} ready.` +
    (others ? ` ${counted(others, 'other')} cannot be read here: the report will say why.` : ''));
  return token;
}

// A folder is read piece by piece, with all that is in it.
async function files_in(entry, found) {
  if (entry.isFile) {
    const file = await new Promise((done, failed) => entry.file(done, failed)).catch(() => null);
    if (file) found.push({ path: entry.fullPath.replace(/^\//, ''), file });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((done) => reader.readEntries(done, () => done([])));
    if (!some.length) return;
    for (const one of some) await files_in(one, found);
  }
}

async function take(data) {
  // What is dropped can be asked for during the event only, so all of it before the first wait.
  const entries = [...data.items].filter((item) => item.kind === 'file').map((item) => item.webkitGetAsEntry());
  tell('Looking at what was dropped …', 0);
  const found = [];
  for (const entry of entries) if (entry) await files_in(entry, found);
  if (found.length) send(found);
  else tell('There is no file in what was dropped.');
}

element.addEventListener('change', ({ target }) => {
  if (!target.matches('.ris-send input')) return;
  const files = [...target.files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
  target.value = ''; // the same may be chosen again
  send(files);
});
element.addEventListener('click', (event) => { if (event.target.closest('.ris-send-stop')) sending?.abort(); });

// Whatever is dropped on the tab is for a new collection, whichever source is chosen.
const is_here = ({ target, dataTransfer }) => dataTransfer?.types.includes('Files') && target.closest?.('#ris-manage');
document.addEventListener('dragover', (event) => {
  if (!is_here(event)) return;
  event.preventDefault();
  field()?.classList.add('ris-over');
  clearTimeout(document.ris_over);
  document.ris_over = setTimeout(() => field()?.classList.remove('ris-over'), 300);
});
document.addEventListener('drop', (event) => {
  if (!is_here(event)) return;
  event.preventDefault();
  document.querySelector('#ris-new-source input[value=sent]')?.click();
  take(event.dataTransfer);
});

let pause, asking;
document.addEventListener('input', ({ target }) => {
  if (!target.matches('#ris-new-folder input')) return;
  target.setAttribute('list', 'ris-folders');
  target.autocomplete = 'off';
  clearTimeout(pause);
  asking?.abort();
  pause = setTimeout(async () => {
    asking = new AbortController();
    const { signal } = asking;
    try {
      const reply = await fetch(`collections/folders?${new URLSearchParams({ typed: target.value })}`, { signal });
      const found = reply.ok ? await reply.json() : []; // who may not manage gets none
      const list = document.getElementById('ris-folders');
      list?.replaceChildren(...found.map((path) => new Option('', path)));
    } catch { /* the next letter was typed, or the server is away */ }
  }, 120);
});
