// What may be typed on, below the field for words (words.js, whose names these are): a combobox as ARIA describes it.
// It is asked for when the typing pauses; an answer to what is no longer typed is dropped.
const PAUSE = 120; // milliseconds
const list = form.querySelector('.ris-suggestions');
const options = () => [...list.children];
let pause, asking;

function close_list() {
  clearTimeout(pause);
  asking?.abort();
  list.hidden = true;
  list.replaceChildren();
  field.setAttribute('aria-expanded', 'false');
  field.removeAttribute('aria-activedescendant');
}

function suggest_soon() {
  clearTimeout(pause);
  asking?.abort();
  pause = setTimeout(suggest, PAUSE);
}

async function suggest() {
  const typed = field.value.slice(0, field.selectionStart);
  if (!typed.trim() || !collection()) return close_list();
  asking = new AbortController();
  const { signal } = asking;
  try {
    const reply = await fetch(`suggestions/${encodeURIComponent(collection())}?${new URLSearchParams({ typed })}`, { signal });
    const found = reply.ok ? await reply.json() : [];
    if (!signal.aborted && document.activeElement === field) show_suggestions(found);
  } catch { /* the next letter was typed, or the server is away: a search would say so */ }
}

function show_suggestions(found) {
  if (!found.length) return close_list();
  list.replaceChildren(...found.map((each, place) => {
    const option = document.createElement('li');
    option.id = `ris-suggestion-${place}`;
    option.setAttribute('role', 'option');
    option.setAttribute('aria-selected', 'false');
    option.dataset.text = each.text;
    const shown = document.createElement('span');
    shown.textContent = each.shown;
    const about = document.createElement('small');
    about.textContent = each.count ? `${each.kind} · ${each.count.toLocaleString()}` : each.kind;
    option.append(shown, ' ', about);
    return option;
  }));
  field.removeAttribute('aria-activedescendant');
  list.hidden = false;
  field.setAttribute('aria-expanded', 'true');
}

function move(by) {
  const all = options();
  const now = all.findIndex((option) => option.getAttribute('aria-selected') === 'true');
  // Before the first and after the last there is the field itself.
  const next = ((now + 1 + by + all.length + 1) % (all.length + 1)) - 1;
  all.forEach((option, place) => option.setAttribute('aria-selected', String(place === next)));
  if (next < 0) return field.removeAttribute('aria-activedescendant');
  field.setAttribute('aria-activedescendant', all[next].id);
  all[next].scrollIntoView({ block: 'nearest' });
}

function take(option) {
  const { text } = option.dataset;
  const rest = field.value.slice(field.selectionStart).trimStart();
  fill(text + rest);
  field.setSelectionRange(text.length, text.length);
  close_list();
  field.focus();
  if (text.endsWith(':')) suggest_soon(); // a field: its values come next
}

field.addEventListener('input', suggest_soon);
field.addEventListener('keydown', (event) => {
  const chosen = list.querySelector('[aria-selected=true]');
  if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
    event.preventDefault();
    if (!list.hidden) move(event.key === 'ArrowDown' ? 1 : -1);
    else if (event.key === 'ArrowDown') suggest();
  } else if (event.key === 'Enter' && chosen && !event.isComposing) {
    event.preventDefault();
    take(chosen);
  } else if (event.key === 'Escape' && !list.hidden) {
    event.preventDefault();
    close_list();
  }
});
list.addEventListener('mousedown', (event) => event.preventDefault()); // the field keeps the focus
list.addEventListener('click', (event) => { const option = event.target.closest('li'); if (option) take(option); });
field.addEventListener('blur', close_list);
form.addEventListener('submit', close_list);
clear.addEventListener('click', close_list);
