// `ask(event, detail)` triggers an event of this component, and of clicks that come faster than answers the last counts.
//
// Gradio (6.31) sends the first of them, and when that is answered the first again; if it ended in an error, none. All
// of one kind therefore share one object, which says what the last of them wants and, as Gradio writes it as JSON to
// send it, notices whether it still waits. After an error (page.AFTER_ERROR) what waits is triggered once more.
const asked = {};
function ask(name, detail = {}) {
  asked[name] ??= { toJSON() { this.waiting = false; return this.detail; } };
  trigger(name, Object.assign(asked[name], { detail, waiting: true }));
}
document.addEventListener('ris-failed', () => {
  for (const [name, what] of Object.entries(asked)) if (what.waiting) trigger(name, what);
});

