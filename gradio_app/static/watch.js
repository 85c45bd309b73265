// Notices that collections came or went, in whichever session that was done, and tells the page.
let seen = element.querySelector('[data-version]').dataset.version;
async function look() {
  if (document.hidden) return;
  try {
    const reply = await fetch('collections/version', { cache: 'no-store' });
    if (!reply.ok) return;
    const version = await reply.text();
    if (version === seen) return;
    seen = version;
    trigger('changed');
  } catch { /* the server is away: the next look may find it */ }
}
look();
setInterval(look, 4000);
document.addEventListener('visibilitychange', look);

// Gradio shows what went wrong with an event of its queue, and of others nothing (6.31): here it is shown for those.
function say(html) {
  document.querySelector('.ris-toast')?.remove();
  const toast = document.createElement('div');
  toast.className = 'ris-toast';
  toast.setAttribute('role', 'alert');
  const text = document.createElement('textarea'); // the server escapes for Gradio, which would show it as HTML
  text.innerHTML = html;
  toast.textContent = text.value;
  toast.addEventListener('click', () => toast.remove());
  setTimeout(() => toast.remove(), 10000);
  document.body.append(toast);
}
const plain_fetch = window.fetch;
window.fetch = async (...request) => {
  const reply = await plain_fetch(...request);
  if (reply.status === 500 && String(request[0]).includes('/run/predict')) {
    const { error } = await reply.clone().json().catch(() => ({}));
    say(error || 'That did not work. Please try again.');
  }
  return reply;
};

// Gradio's sliders tell of a new value when the mouse lets go of them or their number is left (6.31): here also when it is
// entered, and when a key moved them.
document.addEventListener('keyup', ({ target, key }) => {
  if (key === 'Enter' && target.matches?.('input[data-testid=number-input]')) target.dispatchEvent(new FocusEvent('blur'));
  if (/^(Arrow|Page|Home|End)/.test(key) && target.matches?.('input[data-testid=range-input]')) {
    target.dispatchEvent(new PointerEvent('pointerup', { bubbles: true }));
  }
});
