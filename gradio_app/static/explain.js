// Tiles that can be explained: the server is told which.
element.addEventListener('click', (event) => {
  const tile = event.target.closest('[data-explain]');
  if (tile) ask('explain', { id: Number(tile.dataset.explain), engine: tile.dataset.engine || null });
});
