// Tiles that can be explained: the server is told which.
const wanted = {}; // one object for all clicks: see grid.js
element.addEventListener('click', (event) => {
  const tile = event.target.closest('[data-explain]');
  if (tile) {
    trigger('explain', Object.assign(wanted, { id: Number(tile.dataset.explain), engine: tile.dataset.engine || null }));
  }
});
