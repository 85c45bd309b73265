// What is said of the picture in the viewer: read when the picture is shown, edited where that is permitted. The server
// sends the whole panel, also after an edit; what it refuses it says in a sentence.
function reason(text) { // of a refusal, in words
  try { const { detail } = JSON.parse(text); return typeof detail === 'string' ? detail : null; } catch { return null; }
}

function said_panel(panel) {
  let place = null; // of the picture that is shown
  let content = ''; // by which the server knows whether it still is that picture
  let turn = 0; // an answer to what was asked before the last question is dropped

  async function ask_server(change, by = 'form') {
    const mine = ++turn;
    const options = change && {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ ...change, content }),
    };
    let reply, text;
    try {
      reply = await fetch(change ? place : `${place}?${new URLSearchParams({ content })}`, options);
      text = await reply.text();
    } catch {
      if (mine === turn) tell('The server cannot be reached.');
      return;
    }
    if (mine !== turn) return;
    if (reply.ok) show(text, change, by);
    else tell(reason(text) ?? `The server answered ${reply.status}.`);
  }

  function tell(sentence) {
    let fault = panel.querySelector('.ris-said-fault');
    if (!fault) {
      panel.innerHTML = '<p class="ris-said-fault" role="alert"></p>';
      fault = panel.firstElementChild;
    }
    panel.hidden = false;
    fault.hidden = false;
    fault.textContent = sentence;
  }

  // After an edit the keyboard goes on where it was: at the same field, or at the panel where that is gone.
  function show(html, change, by) {
    panel.innerHTML = html;
    panel.hidden = !html;
    if (!change) return;
    document.dispatchEvent(new Event('ris-said'));
    const again = { like: 'unlike', unlike: 'like' }[change.do] ?? change.do;
    const places = {
      form: `form[data-do="${again}"]:not([hidden]) input`,
      button: `button[data-do="${again}"]`,
    };
    const next = panel.querySelector(places[by]) ?? panel.querySelector(`${places.form}, ${places.button}`);
    (next ?? panel).focus();
  }

  panel.addEventListener('click', (event) => {
    const button = event.target.closest('button');
    if (button?.dataset.do) {
      const { do: what, text, edit } = button.dataset;
      ask_server({ do: what, text: text ?? '', edit: Number(edit ?? 0) }, 'button');
    } else if (button?.matches('.ris-reword')) {
      const form = button.parentElement.querySelector('form');
      form.hidden = !form.hidden;
      button.setAttribute('aria-expanded', String(!form.hidden));
      if (!form.hidden) form.querySelector('textarea').focus();
    }
  });
  panel.addEventListener('submit', (event) => {
    event.preventDefault();
    const form = event.target;
    const { name, kind, text } = form.elements;
    const field = name ? { name: name.value, kind: kind.value } : {};
    ask_server({ do: form.dataset.do, text: (text ?? form.querySelector('input, textarea')).value, old: form.dataset.old ?? '', ...field });
  });
  panel.addEventListener('input', ({ target }) => { // what a field holds is asked for where there is none of this name
    const { kind } = target.form?.elements ?? {};
    if (!kind || target.name !== 'name') return;
    kind.hidden = [...target.list.options].some((option) => option.value === target.value.trim().toLowerCase());
  });
  panel.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && event.target.matches('textarea') && !event.shiftKey) {
      event.preventDefault();
      event.target.form.requestSubmit();
    }
    if (!event.target.matches('input, textarea')) return;
    event.stopPropagation(); // arrows move within the text, not to another picture
    if (event.key === 'Escape' && event.target.matches('textarea')) {
      event.preventDefault(); // closes the editor, not the viewer
      const item = event.target.closest('li');
      event.target.form.hidden = true;
      item.querySelector('.ris-reword').setAttribute('aria-expanded', 'false');
      item.querySelector('.ris-reword').focus();
    }
  });

  return (tile) => {
    content = tile.dataset.content;
    place = `words/${encodeURIComponent(tile.dataset.collection)}/${tile.dataset.id}`;
    panel.replaceChildren();
    panel.scrollTop = 0;
    ask_server(null);
  };
}

// Details of the file in the viewer: read when they are opened, and as long as they stay open for each picture.
function details_panel(details) {
  const place = details.querySelector('div');
  let shown = null;
  async function fill() {
    if (!details.open || !shown) return;
    const { collection, id, content } = shown.dataset;
    const mine = shown;
    let text, reply;
    try {
      reply = await fetch(`details/${encodeURIComponent(collection)}/${id}?${new URLSearchParams({ content })}`);
      text = await reply.text();
    } catch { text = null; }
    if (mine !== shown) return;
    if (reply?.ok) place.innerHTML = text;
    else place.textContent = (text && reason(text)) ?? 'The details cannot be read.';
  }
  details.addEventListener('toggle', ({ target }) => { if (target === details) fill(); });
  details.addEventListener('click', async ({ target }) => {
    if (!target.matches('[data-copy]')) return;
    const path = target.parentElement.querySelector('.ris-path');
    try {
      await navigator.clipboard.writeText(path.textContent);
      target.textContent = 'Copied';
    } catch { getSelection().selectAllChildren(path); } // without https the browser lets only people copy
  });
  return (tile) => {
    shown = tile;
    place.replaceChildren();
    fill();
  };
}
