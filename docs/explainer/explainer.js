/* Begins the page: every step draws itself into its section; what several show, the query, is kept here. */
"use strict";

const { about } = DATA;
if (about.exported) {
  document.getElementById("kicker").textContent = about.collection;
  document.getElementById("title").textContent = about.title;
  document.getElementById("lead").textContent =
    "Seven steps from a picture to its hits, with the numbers of this one search, which the library computed and wrote down.";
  document.title = about.title;
}
const page = { query: 0, listeners: [] };
function onQuery(listener) { page.listeners.push(listener); }
function chooseQuery(query) {
  page.query = query;
  for (const listener of page.listeners) listener(query);
}
/* The query beside a step, with arrows to the one before and after it. */
function queryPart() {
  const picture = el("span", { class: "row" }), name = el("span");
  const show = (query) => {
    picture.replaceChildren(thumb(ofQuery(query), 36, { class: "is-query" }));
    name.textContent = DATA.queries[query].label;
  };
  const turn = (by) => chooseQuery((page.query + by + DATA.queries.length) % DATA.queries.length);
  onQuery(show);
  show(page.query);
  const several = DATA.queries.length > 1;
  return el("div", { class: "query-row control" }, el("span", { class: "name" }, "Query"),
    several && el("button", { class: "plain", type: "button", "aria-label": "The query before", onclick: () => turn(-1) }, "‹"),
    picture, name,
    several && el("button", { class: "plain", type: "button", "aria-label": "The next query", onclick: () => turn(1) }, "›"));
}
for (const [number, step] of STEPS.entries()) {
  const figure = document.querySelector(`#step-${number + 1} .figure`);
  step(figure, new Telling(figure));
}
document.getElementById("made").innerHTML = `The index is <code>${escaped(about.factory)}</code>` +
  (about.exported ? `, over ${counted(about.stored, "picture")} of ${escaped(about.collection)}.` :
    `, over ${escaped(about.collection)}; k-means and codewords were trained on ${about.trained} other views of the same photographs, and the queries are views that neither saw.`) +
  ` All was written down by <code>${escaped(about.command)}</code>.`;
const credits = document.querySelector("#credits tbody");
for (const { label, credit } of DATA.credits) credits.append(el("tr", {}, el("td", {}, label), el("td", {}, credit)));
if (!DATA.credits.length) document.querySelector("footer details").remove();
document.documentElement.dataset.ready = "yes";
