// How the words were understood: each part can be left out, and weighed where there are several. Either writes the words
// anew, out of the pieces that the server gave, and has them searched.
const reading = () => element.querySelector('.ris-reading');
const fill = (words) => document.dispatchEvent(new CustomEvent('ris-words', { detail: words }));

function rewrite(change) {
  const terms = JSON.parse(reading().dataset.terms);
  change(terms);
  reading().dataset.terms = JSON.stringify(terms);
  const words = terms.filter(Boolean).join(' ');
  fill(words);
  return words;
}

// What the checks and crosses mean can be named and kept, and what it suggests is on a tab of its own (learned.js).
element.addEventListener('submit', (event) => {
  event.preventDefault();
  trigger('keep', { name: event.target.querySelector('input').value });
});
element.addEventListener('click', (event) => {
  const learned = event.target.closest('[data-learned]');
  if (!learned) return;
  document.ris_learned = learned.dataset.learned;
  trigger('learned');
});

element.addEventListener('click', (event) => {
  const term = event.target.closest('.ris-drop')?.closest('.ris-term');
  if (!term) return;
  const next = term.nextElementSibling ?? term.previousElementSibling;
  const words = rewrite((terms) => { terms[Number(term.dataset.place)] = ''; });
  if (term.dataset.picture !== undefined) document.dispatchEvent(new Event('ris-leave-picture'));
  else if (words || document.querySelector('.ris-crop')) document.dispatchEvent(new Event('ris-go'));
  (next?.querySelector('.ris-drop') ?? document.querySelector('.ris-words input')).focus();
  term.remove();
});
element.addEventListener('input', (event) => {
  if (event.target.type === 'range') event.target.parentElement.querySelector('output').textContent = event.target.value;
});
element.addEventListener('change', (event) => {
  if (event.target.type !== 'range') return;
  const term = event.target.closest('.ris-term');
  const weight = event.target.valueAsNumber;
  const crop = document.querySelector('.ris-crop');
  if (term.dataset.picture === undefined) {
    const written = `${weight < 0 ? '-' : ''}${term.dataset.weighable}${weight === -1 ? '' : `^${Math.abs(weight)}`}`;
    rewrite((terms) => { terms[Number(term.dataset.place)] = written; });
  } else if (crop) crop.dataset.weight = weight;
  document.dispatchEvent(new Event('ris-go'));
});

// A check or a cross on a hit: another one takes its place, and the same once more takes it back.
document.addEventListener('ris-judge', (event) => {
  const { id, verdict } = event.detail;
  const judgement = new RegExp(`^(more|less):${id}(\\^.*)?$`);
  rewrite((terms) => {
    const before = terms.find((term) => judgement.test(term)) ?? '';
    terms.forEach((term, place) => { if (judgement.test(term)) terms[place] = ''; });
    if (!before.startsWith(verdict)) terms.push(`${verdict}:${id}`);
  });
  document.dispatchEvent(new Event('ris-go'));
});

// Another picture of the collection becomes a part of the query, with a weight of its own.
document.addEventListener('ris-add', ({ detail: id }) => {
  rewrite((terms) => { if (!terms.some((term) => new RegExp(`^-?like:${id}(\\^.*)?$`).test(term))) terms.push(`like:${id}`); });
  document.dispatchEvent(new Event('ris-go'));
});

let filled = '';
new MutationObserver(() => {
  const token = reading()?.dataset.fill ?? '';
  if (token && token !== filled) fill(reading().dataset.words);
  filled = token;
}).observe(element, { childList: true, subtree: true, attributeFilter: ['data-fill'] });
