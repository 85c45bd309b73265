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
