/* The seven steps, each a function that draws itself into a figure. What they show is read from data.js. */
"use strict";

const LISTS = numbersOf(DATA.lists);
const STORED = DATA.about.stored;
const K = DATA.about.k;

/* 1 */
function pictureStep(figure, telling) {
  const { dim, d, kept } = DATA.about, count = DATA.pictures.length;
  const vectors = unpacked(DATA.vectors, Float32Array);
  const largest = vectors.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
  const stage = el("div", { class: "stage", role: "img", "data-told": true });
  const lines = svg("svg", { "aria-hidden": "true" });
  const who = el("div", { class: "who" }), bars = el("div", { class: "stage", style: "height:110px" });
  const near = el("div", { class: "row" });
  let chosen = 0, thumbs = [], at = [];
  const control = slider("Picture", { min: 1, max: count, value: 1, id: "picture" }, (n) => choose(n - 1));
  function choose(index) {
    chosen = index;
    const { label } = DATA.pictures[index], { ids, distances } = DATA.neighbours[index];
    const neighbours = ids.map((id) => INDEX_OF.get(id));
    thumbs.forEach((node, i) => {
      node.classList.toggle("is-query", i === index);
      node.classList.toggle("on-top", i === index);
      node.classList.toggle("is-near", neighbours.includes(i));
      node.classList.toggle("dim", i !== index && !neighbours.includes(i));
    });
    lines.replaceChildren(...neighbours.map((i) => svg("line", { x1: at[index][0], y1: at[index][1], x2: at[i][0], y2: at[i][1], stroke: colour("--near"), "stroke-width": 2 })));
    who.replaceChildren(thumb(index, 96, { class: "big" }), el("p", { html: `<b>${escaped(label)}</b><small>${dim.toLocaleString("en")} numbers${d < dim ? `; below, the ${d} that are kept` : ""}</small>` }));
    drawBars(bars, vectors.subarray(index * d, (index + 1) * d), largest, []);
    near.replaceChildren(...neighbours.map((i, n) => thumb(i, 40, { title: `${DATA.pictures[i].label}, ${short(distances[n])}` })));
    control.set(index + 1);
    const same = neighbours.filter((i) => DATA.pictures[i].label === label).length;
    const said = DATA.about.exported ? "" : `, ${same} of them views of the same photograph`;
    telling.say(`The nearest to this view of <b class="q">${escaped(label)}</b> are the <b class="n">${neighbours.length} that light up</b>${said}; the nearest is <b>${short(distances[0])}</b> away, squared.`,
      { picture: index, ids, distances }, ["nearest", "picture", "squared distance"], () => ids.map((id, n) => [n + 1, labelOf(id), distances[n]]));
  }
  const redraw = stageOf(stage, (width) => {
    const side = thumbSide(width), height = mapHeight(width);
    stage.style.height = `${height}px`;
    at = spread(DATA.pictures.map((picture) => picture.at), width, height, side);
    thumbs = at.map(([x, y], i) => thumb(i, side, { style: `left:${x - side / 2}px;top:${y - side / 2}px`, onpointerenter: () => choose(i), onclick: () => choose(i) }));
    stage.replaceChildren(lines, ...thumbs);
    choose(chosen);
  });
  figure.append(el("div", { class: "controls" }, control.node), el("div", { class: "columns" }, stage,
    el("div", { class: "aside" }, who, bars, el("h3", {}, "Nearest to it"), near,
      el("p", { class: "note" }, d < dim ? `Of ${dim.toLocaleString("en")} numbers the index keeps ${d}: the directions in which pictures differ most (${percent(kept)} of all difference).` : null),
      el("p", { class: "note" }, "The map is flat and the vectors are not: near each other here is near there, but how far far is, a map cannot say."))), ...telling.nodes());
  redraw();
}

/* Numbers as bars up and down; over them, others as a line of steps; light lines between parts. */
function drawBars(host, numbers, largest, overlays, parts = 0, names = []) {
  const width = host.clientWidth || 270, height = host.clientHeight || 110, middle = height / 2, n = numbers.length, w = width / n;
  const y = (v) => middle - (v / largest) * (middle - 4);
  let bars = "";
  for (let i = 0; i < n; i++) bars += `M${(i * w).toFixed(2)} ${middle}V${y(numbers[i]).toFixed(2)}h${(Math.max(w * 0.78, w - 2)).toFixed(2)}V${middle}z`;
  const picture = svg("svg", { "aria-hidden": "true", viewBox: `0 0 ${width} ${height}` }, svg("path", { d: bars, fill: colour("--faint") }),
    svg("line", { x1: 0, x2: width, y1: middle, y2: middle, stroke: colour("--line") }));
  for (let p = 1; p < parts; p++) picture.append(svg("line", { x1: p * width / parts - w * 0.1, x2: p * width / parts - w * 0.1, y1: 0, y2: height, stroke: colour("--line") }));
  for (const overlay of overlays) {
    let line = "";
    for (let i = 0; i < n; i++) line += `${i ? "V" : "M0 "}${y(overlay[i]).toFixed(2)}H${((i + 1) * w).toFixed(2)}`;
    picture.append(svg("path", { d: line, fill: "none", stroke: colour("--query"), "stroke-width": n > 400 ? 1 : 2 }));
  }
  names.forEach((name, p) => picture.append(svg("text", { x: (p + 0.5) * width / names.length, y: height - 2, "text-anchor": "middle" }, name)));
  host.replaceChildren(picture);
}

/* 2 */
function cellStep(figure, telling) {
  const sizes = Object.keys(DATA.kmeans).map(Number);
  const stage = el("div", { class: "stage", role: "img", "data-told": true });
  const canvas = el("canvas", { "aria-hidden": "true" }), over = svg("svg", { "aria-hidden": "true" });
  const columns = el("div", { class: "stage", "aria-hidden": "true" }), curve = el("div", { class: "stage", style: "height:120px" });
  let nlist = sizes.includes(DATA.about.nlist) ? DATA.about.nlist : sizes[0], round = 0, timer = null, width = 0, marks = [];
  if (!sizes.length) return listStep(figure, telling, columns);
  const rounds = () => DATA.kmeans[nlist].rounds;
  const cells = slider("Cells (nlist)", { min: 0, max: sizes.length - 1, value: sizes.indexOf(nlist), shown: (i) => String(sizes[i]), id: "nlist" }, (i) => { stop(); nlist = sizes[i]; round = rounds().length - 1; step.set(round + 1, rounds().length); build(); });
  const step = slider("Round of k-means", { min: 1, max: rounds().length, value: 1, id: "round" }, (n) => { stop(); round = n - 1; show(); });
  const play = el("button", { type: "button", class: "plain", onclick: () => timer ? stop() : start() }, "Play");
  function stop() { clearInterval(timer); timer = null; play.textContent = "Play"; }
  function start() {
    play.textContent = "Stop";
    round = 0;
    step.set(1);
    show();
    timer = setInterval(() => {
      if (round + 1 >= rounds().length) return stop();
      round += 1;
      step.set(round + 1);
      show();
    }, 900);
  }
  const xy = ([x, y]) => [14 + x * (width - 28), 14 + y * (mapHeight(width) * 0.8 - 28)];
  function build() {
    marks = Array.from({ length: nlist }, (_, n) => svg("circle", { r: 8, fill: cellColour(n, nlist), stroke: colour("--ink"), "stroke-width": 2, style: "transition:transform .7s" }));
    show();
    drawColumns(columns, numbersOf(DATA.kmeans[nlist].lists), nlist);
  }
  function show() {
    if (!width) return;
    const all = rounds(), now = all[round], numbers = numbersOf(now.cells), scale = devicePixelRatio || 1, height = mapHeight(width) * 0.8;
    canvas.width = width * scale;
    canvas.height = height * scale;
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    const colours = marks.map((_, n) => cellColour(n, nlist));
    DATA.dots.forEach((dot, i) => {
      const [x, y] = xy(dot);
      context.fillStyle = colours[numbers[i]];
      context.beginPath();
      context.arc(x, y, width < 480 ? 2.4 : 4, 0, 7);
      context.fill();
    });
    const trails = [];
    marks.forEach((mark, n) => {
      const path = all.slice(0, round + 1).map((each) => each.centroids[n]).filter(Boolean).map(xy);
      if (!path.length) return mark.setAttribute("display", "none");
      mark.removeAttribute("display");
      const [x, y] = path[path.length - 1];
      mark.style.transform = `translate(${x}px,${y}px)`;
      trails.push(svg("polyline", { points: path.map((point) => point.join(",")).join(" "), fill: "none", stroke: colour("--ink"), "stroke-width": 1.5, opacity: 0.55 }));
    });
    over.replaceChildren(...trails, ...marks);
    drawCurve(curve, all.map((each, i) => [i, each.objective / all[0].objective]), round, { low: 0, x: "round", y: "sum of squared distances", marks: all.map((_, i) => i + 1) });
    const first = all[0].objective, moved = round ? numbers.filter((n, i) => n !== numbersOf(all[round - 1].cells)[i]).length : 0;
    const lists = numbersOf(DATA.kmeans[nlist].lists), held = Array.from({ length: nlist }, (_, n) => lists.filter((l) => l === n).length);
    telling.say(`Round <b class="q">${round + 1}</b> of ${all.length}: ${round ? `<b>${counted(moved, "vector")}</b> changed cell, and all together lie <b class="n">${percent(1 - now.objective / first)}</b> nearer to their centroids than at first` : `every vector belongs to the nearest of <b>${nlist}</b> that were drawn to begin with`}. In the end the lists hold <b>${Math.min(...held)}</b> to <b>${Math.max(...held)}</b> of the ${STORED} pictures.`,
      { nlist, round, objective: now.objective, moved, sizes: held }, ["list", "pictures in it"], () => held.map((n, i) => [i + 1, n]));
  }
  round = rounds().length - 1;
  step.set(round + 1);
  figure.append(el("div", { class: "controls" }, cells.node, step.node, play), el("div", { class: "columns" }, stage,
    el("div", { class: "aside" }, el("h3", {}, "How far all are from their centroids"), curve, el("p", { class: "note" }, `Small dots are the ${DATA.dots.length} vectors that were trained on, in the colour of their cell; rings are centroids, drawn in the middle of their cells, with the way they came. Cells are regions in ${DATA.about.d} dimensions: on a map they overlap a little.`))),
    el("h3", { class: "sub", style: "margin-top:18px" }, "The lists, and the pictures in them"), columns, ...telling.nodes());
  stage.append(canvas, over);
  stageOf(stage, (now) => { width = now; stage.style.height = `${mapHeight(width) * 0.8}px`; build(); })();
  stageOf(columns, () => drawColumns(columns, numbersOf(DATA.kmeans[nlist].lists), nlist));
}
/* Without the rounds of k-means: the lists of an index that was made before, longest first. */
function listStep(figure, telling, columns) {
  const order = DATA.sizes.map((size, number) => [size, number]).sort((a, b) => b[0] - a[0]);
  const draw = () => drawSizes(columns, order);
  figure.append(el("div", { class: "controls" }), columns, el("p", { class: "note" }, "This index was trained when the collection was made: the rounds of its k-means are gone, and what they led to is here."), ...telling.nodes());
  figure.querySelector(".controls").remove();
  const held = order.map(([size]) => size);
  columns.setAttribute("role", "img");
  columns.dataset.told = "";
  columns.removeAttribute("aria-hidden");
  telling.say(`<b>${STORED.toLocaleString("en")}</b> pictures lie in <b class="q">${DATA.about.nlist}</b> lists, the longest of <b>${held[0]}</b>, the shortest of <b>${held[held.length - 1]}</b>, <b class="n">${(STORED / DATA.about.nlist).toFixed(1)}</b> on average.`,
    { nlist: DATA.about.nlist, sizes: DATA.sizes }, ["list", "pictures in it"], () => order.map(([size, number]) => [number, size]));
  stageOf(columns, draw)();
}
function drawSizes(host, order) {
  const width = host.clientWidth, height = 190, most = order[0][0], w = width / order.length;
  host.style.height = `${height}px`;
  host.replaceChildren(svg("svg", { "aria-hidden": "true" }, order.map(([size, number], i) => svg("rect", { x: i * w + 0.5, y: height - (height - 20) * size / most, width: Math.max(w - 1, 1), height: (height - 20) * size / most, fill: cellColour(number, order.length) }))));
}
function drawColumns(host, numbers, nlist) {
  const width = host.clientWidth;
  if (!width) return;
  const lists = Array.from({ length: nlist }, (_, n) => numbers.map((l, i) => [l, i]).filter(([l]) => l === n).map(([, i]) => i));
  const rows = width < 560 && nlist > 12 ? 2 : 1, perRow = Math.ceil(nlist / rows), pitch = width / perRow, side = Math.max(12, Math.min(34, Math.floor(pitch - 6)));
  const nodes = [];
  let top = 0;
  for (let row = 0; row < rows; row++) {
    const its = lists.slice(row * perRow, (row + 1) * perRow), tall = Math.max(...its.map((list) => list.length));
    // Long columns fold, so that no list is taller than a dozen pictures.
    its.forEach((list, i) => {
      const x = i * pitch;
      nodes.push(el("i", { style: `position:absolute;left:${x}px;top:${top}px;width:${side}px;height:6px;border-radius:3px;background:${cellColour(row * perRow + i, nlist)}` }));
      list.forEach((index, n) => nodes.push(thumb(index, side, { style: `left:${x}px;top:${top + 10 + n * (side + 2)}px` })));
    });
    top += 10 + tall * (side + 2) + 8;
  }
  host.style.height = `${top}px`;
  host.replaceChildren(...nodes);
}
/* A line through points, one of which is now. */
function drawCurve(host, points, now, { low = 0, high = 1, x, y, marks }) {
  const width = host.clientWidth || 270, height = host.clientHeight || 120, left = 34, bottom = 30, right = width - 14, top = 12;
  const span = Math.max(1e-9, points[points.length - 1][0] - points[0][0]);
  const at = ([a, b]) => [left + (right - left) * (a - points[0][0]) / span, height - bottom - (height - bottom - top) * (b - low) / (high - low)];
  const line = points.map(at);
  host.replaceChildren(svg("svg", { "aria-hidden": "true" },
    [low, high].map((value) => svg("g", {}, svg("line", { x1: left, x2: right, y1: at([points[0][0], value])[1], y2: at([points[0][0], value])[1], stroke: colour("--line") }), svg("text", { x: left - 6, y: at([points[0][0], value])[1] + 4, "text-anchor": "end" }, percent(value).replace(" %", "%")))),
    svg("polyline", { points: line.map((p) => p.join(",")).join(" "), fill: "none", stroke: colour("--near"), "stroke-width": 2.5, "stroke-linejoin": "round" }),
    line.map(([cx, cy], i) => svg("circle", { cx, cy, r: i === now ? 7 : 3, fill: i === now ? colour("--query") : colour("--near") })),
    svg("text", { x: (left + right) / 2, y: height - 4, "text-anchor": "middle" }, x)));
}

/* 3 */
function probeStep(figure, telling) {
  const { nlist } = DATA.about;
  const stage = el("div", { class: "stage", role: "group", "data-told": true });
  const over = svg("svg", { "aria-hidden": "true" }), above = svg("svg", { "aria-hidden": "true", style: "pointer-events:none;z-index:4" });
  const curve = el("div", { class: "stage", style: "height:170px" });
  const truthRow = el("div", { class: "row" });
  let nprobe = Math.min(DATA.about.nprobe, nlist), at = [], thumbs = [], width = 0, height = 0;
  const control = slider("Lists looked into (nprobe)", { min: 1, max: nlist, value: nprobe, id: "nprobe" }, (n) => { nprobe = n; show(); });
  const chooser = el("div", { style: "margin-top:12px" });
  const handle = el("button", { type: "button", class: "handle", "aria-label": "The query: drag it to another, or use the arrow keys" });
  const point = (q) => at[DATA.pictures.length + q];
  function outcome(query, n) {
    const probed = new Set(query.order.slice(0, n));
    const found = query.truth.filter((id) => probed.has(LISTS[INDEX_OF.get(id)]));
    let looked = 0;
    for (const list of probed) looked += DATA.sizes[list];
    return { probed, found, recall: found.length / query.truth.length, looked, share: looked / STORED };
  }
  function show() {
    const query = DATA.queries[page.query], { probed, found, recall, looked, share } = outcome(query, nprobe);
    thumbs.forEach((node, i) => {
      const id = DATA.ids[i], inside = probed.has(LISTS[i]), isTrue = query.truth.includes(id);
      node.className = `thumb${inside ? "" : isTrue ? " half" : " dim"}${isTrue ? inside ? " is-near" : " is-lost" : ""}`;
      if (i >= DATA.pictures.length) node.className = `thumb ${i - DATA.pictures.length === page.query ? "is-query" : "dim"}`;
    });
    if (width) {
      const [x, y] = point(page.query), middles = [], ranks = [];
      for (const list of query.order.slice(0, Math.max(nprobe + 4, 12))) {
        const its = LISTS.map((l, i) => [l, i]).filter(([l]) => l === list).map(([, i]) => at[i]);
        if (!its.length) continue;
        const cx = its.reduce((sum, p) => sum + p[0], 0) / its.length, cy = its.reduce((sum, p) => sum + p[1], 0) / its.length;
        const rank = query.order.indexOf(list), open = probed.has(list);
        if (open) for (const [px, py] of its) middles.push(svg("line", { x1: cx, y1: cy, x2: px, y2: py, stroke: cellColour(list, nlist), "stroke-width": 2, opacity: 0.75 }));
        middles.push(svg("line", { x1: x, y1: y, x2: cx, y2: cy, stroke: open ? colour("--query") : colour("--line"), "stroke-width": open ? 2 : 1, "stroke-dasharray": open ? "none" : "3 5" }));
        ranks.push(svg("circle", { cx, cy, r: 11, fill: open ? cellColour(list, nlist) : colour("--raised"), stroke: open ? colour("--ink") : colour("--faint") }),
          svg("text", { x: cx, y: cy + 4, "text-anchor": "middle", class: "strong", style: open ? "fill:#11151b" : "" }, String(rank + 1)));
      }
      over.replaceChildren(...middles);
      above.replaceChildren(...ranks);
      handle.style.left = `${x}px`;
      handle.style.top = `${y}px`;
    }
    truthRow.replaceChildren(...query.truth.map((id) => thumb(INDEX_OF.get(id), 40, { class: found.includes(id) ? "is-near" : "is-lost", title: labelOf(id) })));
    const points = Array.from({ length: nlist }, (_, n) => { const o = outcome(query, n + 1); return [o.share, o.recall]; });
    drawCurve(curve, points, nprobe - 1, { x: "share of the pictures looked at →" });
    const lost = query.truth.length - found.length;
    telling.say(`${counted(nprobe, "list")} of ${nlist} looked into, <b>${looked.toLocaleString("en")}</b> of ${STORED.toLocaleString("en")} pictures (<b class="q">${percent(share)}</b>): <b class="n">${found.length}</b> of the ${query.truth.length} nearest to <b>${escaped(query.label)}</b> are there${lost ? `, <b class="l">${lost} ${lost === 1 ? "is" : "are"} lost</b>` : ", none is lost"}. The share found is called recall: here <b class="n">${recall.toFixed(1)}</b>.`,
      { query: page.query, nprobe, recall, looked, share, found }, ["true rank", "picture", "its list is the … nearest", "squared distance", "found"],
      () => query.truth.map((id, n) => [n + 1, labelOf(id), ordinal(query.order.indexOf(LISTS[INDEX_OF.get(id)]) + 1), query.truth_distances[n], found.includes(id) ? "yes" : "lost"]));
  }
  function chosen() {
    chooser.replaceChildren(picks("query", "Query", DATA.queries.map((_, i) => ofQuery(i)), DATA.queries.map((q) => q.label), page.query, 40, chooseQuery));
    show();
  }
  function nearestQuery(event) {
    const box = stage.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    let best = 0;
    DATA.queries.forEach((_, q) => { if (Math.hypot(point(q)[0] - x, point(q)[1] - y) < Math.hypot(point(best)[0] - x, point(best)[1] - y)) best = q; });
    return best;
  }
  handle.addEventListener("pointerdown", (event) => handle.setPointerCapture(event.pointerId));
  handle.addEventListener("pointermove", (event) => { if (handle.hasPointerCapture(event.pointerId)) { const q = nearestQuery(event); if (q !== page.query) chooseQuery(q); } });
  handle.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by || DATA.queries.length < 2) return;
    event.preventDefault();
    chooseQuery((page.query + by + DATA.queries.length) % DATA.queries.length);
  });
  onQuery((query) => {
    const radios = chooser.querySelectorAll("input");
    if (radios[query]) radios[query].checked = true;
    show();
  });
  const redraw = stageOf(stage, (now) => {
    const side = thumbSide(now);
    [width, height] = [now, mapHeight(now)];
    stage.style.height = `${height}px`;
    at = spread([...DATA.pictures, ...DATA.queries].map((each) => each.at), width, height, side);
    thumbs = at.map(([x, y], i) => thumb(i, side, { style: `left:${x - side / 2}px;top:${y - side / 2}px`, onclick: i >= DATA.pictures.length && (() => chooseQuery(i - DATA.pictures.length)) || undefined }));
    stage.replaceChildren(over, ...thumbs, above, ...(DATA.queries.length > 1 ? [handle] : []));
    show();
  });
  figure.append(el("div", { class: "controls" }, control.node), el("div", { class: "columns" }, stage,
    el("div", { class: "aside" }, el("h3", {}, `The ${K} truly nearest, by comparing all`), truthRow, el("h3", {}, "Recall against work"), curve,
      el("div", { class: "legend" }, el("span", { html: `<i style="background:var(--query)"></i>query` }), el("span", { html: `<i style="background:var(--near)"></i>found` }), el("span", { html: `<i style="background:var(--lost)"></i>lost` })),
      el("p", { class: "note" }, "Numbers in circles are the order in which lists come, by how near their centroids are to the query."))), chooser, ...telling.nodes());
  chosen();
  redraw();
}

/* 4 */
function codeStep(figure, telling) {
  const { codes } = DATA, { d } = DATA.about;
  const residuals = unpacked(codes.residuals, Float32Array), costs = unpacked(codes.costs, Uint8Array);
  const parts = [...new Set(codes.configs.map((c) => c.M))], depths = [...new Set(codes.configs.map((c) => c.nbits))];
  const mine = [DATA.about.M, DATA.about.nbits], ksub = 2 ** DATA.about.nbits, square = Math.round(Math.sqrt(ksub));
  const bars = el("div", { class: "stage", style: "height:190px", role: "img", "data-told": true });
  const grids = el("div", { class: "grids" }), gridsTitle = el("h3", { class: "sub", style: "margin-top:16px" });
  const errors = el("div"), picture = el("div", { class: "who", style: "margin:0" });
  let M = mine[0], nbits = mine[1], chosen = 0;
  const ofM = slider("Parts (M)", { min: 0, max: parts.length - 1, value: parts.indexOf(M), shown: (i) => String(parts[i]), id: "parts" }, (i) => { M = parts[i]; show(); });
  const ofBits = slider("Bits a part (nbits)", { min: 0, max: depths.length - 1, value: depths.indexOf(nbits), shown: (i) => String(depths[i]), id: "bits" }, (i) => { nbits = depths[i]; show(); });
  const mean = (config) => config.errors.reduce((sum, e) => sum + e, 0) / config.errors.length;
  function show() {
    const config = codes.configs.find((c) => c.M === M && c.nbits === nbits), id = codes.pictures[chosen], index = INDEX_OF.get(id);
    const own = residuals.subarray(chosen * d, (chosen + 1) * d);
    const largest = own.reduce((most, v) => Math.max(most, Math.abs(v)), 1e-9);
    const rebuilt = Array.from(unpacked(config.rebuilt, Int8Array).subarray(chosen * d, (chosen + 1) * d), (v) => v * codes.scale / 127);
    const isMine = M === mine[0] && nbits === mine[1];
    drawBars(bars, own, largest * 1.1, [rebuilt], M, isMine ? codes.codes[chosen].map(String) : []);
    picture.replaceChildren(thumb(index, 64, { class: "big" }), el("p", { html: `<b>${escaped(labelOf(id))}</b><small>in list ${LISTS[index] + 1}</small>` }));
    gridsTitle.textContent = isMine ? `What each part chose from: ${ksub} codewords, the nearer the stronger, the chosen one outlined` : `With ${M} ${M === 1 ? "part" : "parts"} of ${nbits} bits each part chooses among ${2 ** nbits} codewords; those of this page’s index are shown at ${mine[0]} parts of ${mine[1]} bits`;
    grids.replaceChildren(...(isMine ? codes.codes[chosen].map((number, m) => {
      const canvas = el("canvas", { "aria-hidden": "true" }), row = costs.subarray((chosen * mine[0] + m) * ksub, (chosen * mine[0] + m + 1) * ksub);
      paint(canvas, square, ksub / square, Array.from(row, (v) => 1 - v / 255));
      return el("figure", {}, el("div", { style: "position:relative" }, canvas, el("i", { style: `position:absolute;left:${100 * (number % square) / square}%;top:${100 * Math.floor(number / square) / (ksub / square)}%;width:${100 / square}%;height:${100 * square / ksub}%;outline:2px solid var(--query)` })), el("figcaption", { html: `part ${m + 1}: <b>${number}</b>` }));
    }) : []));
    const error = config.errors[index], kept = M * nbits / 8;
    errors.replaceChildren(el("table", { class: "errors" }, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "bits\u2009\\\u2009M"), parts.map((p) => el("th", { scope: "col", class: "num" }, String(p))))),
      el("tbody", {}, depths.map((b) => el("tr", {}, el("th", { scope: "row" }, String(b)), parts.map((p) => {
        const c = codes.configs.find((each) => each.M === p && each.nbits === b), now = p === M && b === nbits;
        return el("td", { class: "num", style: `background:color-mix(in srgb, var(--near) ${(42 * (1 - mean(c))).toFixed(0)}%, transparent);padding:4px 8px;${now ? "outline:2px solid var(--query);outline-offset:-2px;font-weight:700" : ""}` }, (100 * mean(c)).toFixed(mean(c) < 0.1 ? 1 : 0));
      }))))));
    telling.say(`${counted(M, "part")} of ${nbits} bits make a code of <b class="q">${kept < 1 ? `${M * nbits} bits` : counted(kept, "byte")}</b> in place of ${bytes(4 * DATA.about.dim)}, and leave <b class="l">${percent(error)}</b> of this residual unsaid (squared), of all pictures’ <b>${percent(mean(config))}</b>.`,
      { picture: id, M, nbits, error, mean: mean(config) }, ["parts (M)", "bits (nbits)", "bytes", "this picture", "all pictures"],
      () => codes.configs.map((c) => [c.M, c.nbits, c.M * c.nbits / 8, c.errors[index], Number(mean(c).toFixed(4))]));
  }
  const chooser = picks("coded", "Picture", codes.pictures.map((id) => INDEX_OF.get(id)), codes.pictures.map(labelOf), 0, 36, (i) => { chosen = i; show(); });
  figure.append(el("div", { class: "controls" }, parts.length > 1 && ofM.node, depths.length > 1 && ofBits.node), el("div", { class: "columns" }, el("div", {},
    el("h3", { class: "sub" }, `The residual’s ${d} numbers (grey), and what the code says of them (line)`), bars, gridsTitle, grids),
  el("div", { class: "aside" }, picture, el("h3", {}, codes.configs.length > 1 ? "Left unsaid on average, %" : "Left unsaid on average, %"), el("div", { class: "scroll" }, errors))), el("div", { style: "margin-top:14px" }, chooser), ...telling.nodes());
  figure.querySelector(".aside .scroll").setAttribute("tabindex", "0");
  figure.querySelector(".aside .scroll").setAttribute("role", "region");
  figure.querySelector(".aside .scroll").setAttribute("aria-label", "Error by parts and bits");
  stageOf(bars, show)();
}

/* 5 */
function lookUpStep(figure, telling) {
  const { M } = DATA.about, ksub = 2 ** DATA.about.nbits;
  const stage = el("div", { class: "stage", role: "img", "data-told": true });
  const canvas = el("canvas", { "aria-hidden": "true", style: "image-rendering:pixelated;border-radius:4px" }), over = svg("svg", { "aria-hidden": "true" });
  const title = el("h3", { class: "sub" }), sum = el("div", { class: "stage" }), who = el("div", { class: "who", style: "margin:0" });
  let rank = 0, pointed = null;
  const top = () => DATA.queries[page.query].lookup;
  const control = slider("Picture in the nearest list, by rank", { min: 1, max: top().rows.length, value: 1, id: "looked-up" }, (n) => { rank = n - 1; show(); });
  const hover = el("p", { class: "note" }, "Point at the table to read an entry.");
  stage.addEventListener("pointermove", (event) => {
    const box = stage.getBoundingClientRect(), m = Math.floor((event.clientY - box.top) / box.height * M), j = Math.floor((event.clientX - box.left) / box.width * ksub);
    if (m < 0 || m >= M || j < 0 || j >= ksub) return;
    const entry = pointed[m * ksub + j];
    hover.textContent = `Row ${m + 1}, codeword ${j}: ${entry.toFixed(4)}`;
  });
  function show() {
    const lookup = top(), rows = lookup.rows;
    const others = lookup.list === DATA.queries[page.query].order[0] ? "" : " that holds another picture";
    title.textContent = `The table of the query’s nearest list${others}: ${M} parts by ${ksub} codewords, the cheaper the stronger`;
    rank = Math.min(rank, rows.length - 1);
    control.set(rank + 1, rows.length);
    const row = rows[rank], entries = ofSteps(lookup.table), width = stage.clientWidth, height = width < 480 ? 150 : 208;
    pointed = entries;
    stage.style.height = `${height}px`;
    const high = Array.from(entries).sort((a, b) => a - b)[Math.floor(entries.length * 0.97)];
    paint(canvas, ksub, M, Array.from(entries, (v) => 1 - Math.min(1, v / high) ** 0.6));
    const w = width / ksub, h = height / M, spots = row.code.map((j, m) => [(j + 0.5) * w, (m + 0.5) * h]);
    over.replaceChildren(
      ...Array.from({ length: M - 1 }, (_, m) => svg("line", { x1: 0, x2: width, y1: (m + 1) * h, y2: (m + 1) * h, stroke: colour("--raised"), "stroke-width": 2 })),
      svg("polyline", { points: spots.map((p) => p.join(",")).join(" "), fill: "none", stroke: colour("--query"), "stroke-width": 1.5, opacity: 0.8 }),
      ...spots.map(([x, y], m) => svg("g", {}, svg("rect", { x: x - Math.max(w / 2, 5), y: y - h / 2 + 1, width: Math.max(w, 10), height: h - 2, fill: "none", stroke: colour("--query"), "stroke-width": 2.5, rx: 2 }))));
    const most = Math.max(...rows.map((each) => Math.max(each.sum, each.kept, each.true))), full = sum.clientWidth || width, scale = (full - 210) / most, nodes = [];
    let x = 0;
    row.parts.forEach((value, m) => {
      const wide = value * scale;
      nodes.push(svg("rect", { x, y: 18, width: Math.max(wide - 1.5, 0.5), height: 30, fill: colour("--query"), opacity: 0.5 + 0.5 * ((m + 1) % 2) }));
      if (wide > 40) nodes.push(svg("text", { x: x + wide / 2, y: 12, "text-anchor": "middle" }, value.toFixed(3)));
      x += wide;
    });
    nodes.push(svg("text", { x: x + 8, y: 38, class: "strong" }, `${row.sum.toFixed(4)} by the code`));
    const bar = (value, y, name) => nodes.push(svg("rect", { x: 0, y, width: value * scale, height: 14, fill: colour("--near") }), svg("text", { x: value * scale + 8, y: y + 12, class: "strong" }, `${value.toFixed(4)} ${name}`));
    const isCut = DATA.about.d < DATA.about.dim;
    bar(row.kept, 58, isCut ? `by all ${DATA.about.d} numbers` : "true");
    if (isCut) bar(row.true, 80, `by the ${DATA.about.dim.toLocaleString("en")} of the start`);
    sum.style.height = isCut ? "100px" : "80px";
    sum.replaceChildren(svg("svg", { "aria-hidden": "true" }, nodes));
    who.replaceChildren(thumb(INDEX_OF.get(row.id), 64, { class: "big" }), el("p", { html: `<b>${escaped(labelOf(row.id))}</b><small>code ${row.code.join(" ")}</small>` }));
    const off = row.sum - row.kept;
    telling.say(`The code says which entry of each row to take; <b>${M}</b> of them add up to <b class="q">${row.sum.toFixed(4)}</b>. The true squared distance of the ${DATA.about.d.toLocaleString("en")} numbers is <b class="n">${row.kept.toFixed(4)}</b>: the code is off by <b class="l">${off > 0 ? "+" : "−"}${Math.abs(off).toFixed(4)}</b>, and ${M} additions took the place of ${DATA.about.d.toLocaleString("en")} multiplications.`,
      { query: page.query, id: row.id, code: row.code, parts: row.parts, sum: row.sum, kept: row.kept, true: row.true }, ["part", "codeword", "its entry"],
      () => [...row.code.map((j, m) => [m + 1, j, row.parts[m]]), ["sum", "", row.sum], ["true, of the numbers kept", "", row.kept], ["true, of all numbers", "", row.true]]);
  }
  onQuery(() => { rank = 0; show(); });
  stage.append(canvas, over);
  figure.append(el("div", { class: "controls" }, control.node, queryPart()), title, stage, hover,
    el("div", { class: "columns", style: "margin-top:14px" }, el("div", {}, el("h3", { class: "sub" }, "The entries, one after the other"), sum), who), ...telling.nodes());
  stageOf(stage, show)();
}

/* 6 */
function screenStep(figure, telling) {
  const { M, nbits } = DATA.about, groups = Math.min(16, 2 ** nbits);
  const stage = el("div", { class: "stage", role: "img", "data-told": true }), minima = el("div", { class: "stage" });
  const canvas = el("canvas", { "aria-hidden": "true", style: "image-rendering:pixelated;border-radius:4px" });
  const of = () => DATA.queries[page.query].screening;
  let k = Math.min(5, of().looks.length);
  const control = slider("Neighbours wanted (k)", { min: 1, max: of().looks.length, value: k, id: "wanted" }, (n) => { k = n; show(); });
  minima.append(canvas);
  function show() {
    const { ids, sums, looks } = of();
    k = Math.min(k, looks.length);
    control.set(k, looks.length);
    const look = looks[k - 1], bounds = ofSteps(look.bounds), width = stage.clientWidth, height = width < 480 ? 230 : 300;
    stage.style.height = `${height}px`;
    const wide = minima.clientWidth;
    minima.style.height = `${wide / groups * M}px`;
    const entries = ofSteps(of().minima), top = Math.max(...entries, 1e-9);
    paint(canvas, groups, M, Array.from(entries, (v) => 1 - (v / top) ** 0.6));
    const order = sums.map((_, i) => i), most = Math.max(...sums), left = 40, w = (width - left) / order.length;
    const y = (v) => height - 26 - Math.max(0, v) / most * (height - 44);
    let grey = "", near = "", greyDots = "", nearDots = "";
    const r = Math.max(1.1, Math.min(4, w * 0.36));
    for (const i of order) {
      const x = (left + (i + 0.5) * w).toFixed(1), survives = look.survives[i] === "1";
      const line = `M${x} ${y(bounds[i]).toFixed(1)}V${y(sums[i]).toFixed(1)}`, dot = `M${(x - r).toFixed(1)} ${y(sums[i]).toFixed(1)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
      if (survives) { near += line; nearDots += dot; } else { grey += line; greyDots += dot; }
    }
    const stroke = Math.max(1, Math.min(4, w * 0.42));
    stage.replaceChildren(svg("svg", { "aria-hidden": "true" },
      [0, 0.5, 1].map((share) => svg("g", {}, svg("line", { x1: left, x2: width, y1: y(share * most), y2: y(share * most), stroke: colour("--line") }), svg("text", { x: left - 8, y: y(share * most) + 4, "text-anchor": "end" }, (share * most).toFixed(2)))),
      svg("path", { d: grey, stroke: colour("--faint"), "stroke-width": stroke, opacity: 0.45 }), svg("path", { d: greyDots, fill: colour("--faint") }),
      svg("path", { d: near, stroke: colour("--near"), "stroke-width": stroke, opacity: 0.6 }), svg("path", { d: nearDots, fill: colour("--near") }),
      svg("line", { x1: left, x2: width, y1: y(look.limit), y2: y(look.limit), stroke: colour("--query"), "stroke-width": 2 }),
      svg("text", { x: width - 4, y: y(look.limit) - 6, "text-anchor": "end", style: "fill:var(--query);font-weight:600" }, `limit ${short(look.limit)}`),
      svg("text", { x: (left + width) / 2, y: height - 6, "text-anchor": "middle" }, "codes in the order in which they are scanned →")));
    const survivors = [...look.survives].filter((c) => c === "1").length, code = Math.ceil(M * nbits / 8) + 1;
    const read = ids.length * code + survivors * M * 4, whole = ids.length * 4 * DATA.about.dim;
    telling.say(`With the <b>${ordinal(k)}</b> smallest distance as limit, <b class="q">${short(look.limit)}</b>, the bounds let <b class="n">${survivors}</b> of ${ids.length.toLocaleString("en")} codes pass; only these are added up in full. <b>${bytes(read)}</b> were read, where the vectors take ${bytes(whole)}.`,
      { query: page.query, k, limit: look.limit, survivors, read }, ["code of", "bound", "distance by the code", "passes"],
      () => order.map((i) => [`${labelOf(ids[i])} (${ids[i]})`, Number(bounds[i].toFixed(4)), sums[i], look.survives[i] === "1" ? "yes" : ""]));
  }
  onQuery(show);
  figure.append(el("div", { class: "controls" }, control.node, queryPart()), el("div", { class: "columns" }, stage,
    el("div", { class: "aside" }, el("h3", {}, `The smallest entries: ${M} rows of ${groups}`), minima,
      el("p", { class: "note" }, `${M * groups} bytes that stay in registers while the codes stream by. A stroke goes from a code’s bound up to its distance, the dot; a stroke that begins above the limit is never looked at again. Bounds are counted in 255 steps up to the limit; whatever is higher counts as just above it.`),
      el("div", { class: "legend" }, el("span", { html: `<i style="background:var(--near)"></i>looked at again` }), el("span", { html: `<i style="background:var(--faint)"></i>left out` })))), ...telling.nodes());
  stageOf(stage, show)();
}

/* 7 */
function codecStep(figure, telling) {
  const { budgets, measured } = DATA, host = el("div", { role: "group", "data-told": true });
  let budget = 0;
  const control = budgets.length > 1 && slider("Bytes a picture", { min: 0, max: budgets.length - 1, value: 0, shown: (i) => String(budgets[i].bytes), id: "bytes" }, (i) => { budget = i; show(); });
  function show() {
    const { bytes: size, codecs } = budgets[budget], query = DATA.queries[page.query];
    const found = codecs.map(({ hits }) => hits[page.query].filter((id) => query.truth.includes(id)).length);
    host.replaceChildren(...codecs.map(({ name, factory, hits, recall }, c) => el("div", { class: "codec" },
      el("h3", {}, name, el("code", {}, factory)),
      el("div", { class: "row" }, hits[page.query].map((id) => thumb(INDEX_OF.get(id), 44, { class: query.truth.includes(id) ? "is-near" : "half", title: labelOf(id) }))),
      el("div", {}, el("div", { class: "meter" }, el("i", { style: `width:${100 * found[c] / query.truth.length}%` })), el("p", { html: `<b>${found[c]}</b> of ${query.truth.length} here${recall === null ? "" : `; over all queries <b>${percent(recall)}</b>`}` })))));
    const best = codecs[found.indexOf(Math.max(...found))];
    telling.say(`${size === null ? "" : `In <b class="q">${size}</b> bytes a picture, `}${codecs.map(({ name }, c) => `${escaped(name)} finds <b class="${found[c] === Math.max(...found) ? "n" : "l"}">${found[c]}</b>`).join(", ")} of the ${query.truth.length} nearest to <b>${escaped(query.label)}</b>.${size === 8 && !DATA.about.exported ? " (RaBitQ keeps 8 bytes beside its bits: it begins at 16.)" : ""}`,
      { query: page.query, bytes: size, found, best: best.name }, ["codec", "as a factory string", "found", "rank and picture"],
      () => codecs.map(({ name, factory, hits }, c) => [name, factory, found[c], hits[page.query].map((id, n) => `${n + 1} ${labelOf(id)}`).join(", ")]));
  }
  onQuery(show);
  const sizes = [...new Set(measured.rows.map((row) => row.bytes))], names = [...new Set(measured.rows.map((row) => `${row.codec} (${row.engine})`))];
  const table = el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "recall@10"), sizes.map((size) => el("th", { scope: "col", class: "num" }, `${size} bytes`)))),
    el("tbody", {}, names.map((name) => el("tr", {}, el("th", { scope: "row" }, name), sizes.map((size) => {
      const row = measured.rows.find((each) => `${each.codec} (${each.engine})` === name && each.bytes === size);
      return el("td", { class: "num" }, row ? row.recall.toFixed(3) : "–");
    })))));
  const [ours] = measured.scan.ours, [theirs] = measured.scan.theirs;
  figure.append(el("div", { class: "controls" }, control && control.node, queryPart()), host, el("h3", { class: "sub", style: "margin-top:18px" }, `The same on ${measured.n.toLocaleString("en")} pictures of Caltech101, as measured`), el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Measured recall" }, table),
    el("p", { class: "note" }, `All codes scanned, ${measured.queries} held-out queries; kernel ${measured.kernel}, ${measured.cpu}, ${measured.date}. One scan of a million codes of 8 bytes, one thread: ${ours.toFixed(0)} µs here, ${theirs.toFixed(0)} µs by faiss (IndexPQ). RaBitQ was not in that run.`), ...telling.nodes());
  show();
}

const STEPS = [pictureStep, cellStep, probeStep, codeStep, lookUpStep, screenStep, codecStep];
