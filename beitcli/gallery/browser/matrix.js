// The confusion matrix: a table of cells to click for a few classes, a heat map for many.

const MOST_NAMED = 30; // classes whose cells have names
const MOST_PAIRS = 300; // in the table of confusions

/* The number that the page gives to a class of the figures. */
const numberOfLabel = new Map(data.labels.map((label, number) => [label, number]));

/* The matrix by places in `figures.classes`: [true, predicted, images], and the images of each true class. */
function confusions(figures) {
  const place = new Map(figures.classes.map((each, number) => [each.index, number]));
  const totals = new Array(figures.classes.length).fill(0), pairs = [];
  for (const each of figures.confusion) {
    const real = place.get(each.true);
    totals[real] += each.images;
    pairs.push([real, place.get(each.predicted), each.images]);
  }
  return { pairs, totals };
}

/* Colours show the square root of a share, so that rare confusions are seen. */
const shade = (images, total) => (total ? Math.sqrt(images / total) : 0);

const asPair = (real, predicted) => `${shortLabel(real.label)} predicted as ${shortLabel(predicted.label)}`;
const classHead = (scope, { label }) => element("th", { scope, title: label }, element("span", {}, shortLabel(label)));

function matrixTable(figures, onPick) {
  const { pairs, totals } = confusions(figures), { classes } = figures;
  const counts = classes.map(() => new Array(classes.length).fill(0));
  for (const [real, predicted, images] of pairs) counts[real][predicted] = images;

  function cell(real, predicted) {
    const images = counts[real][predicted], share = shade(images, totals[real]);
    const made = element("td", { className: real === predicted ? "diagonal" : "" });
    if (!images) return made;
    made.style.setProperty("--shade", share);
    made.classList.toggle("dark", share > 0.62);
    const what = `${counted(images, "image")}: ${asPair(classes[real], classes[predicted])}`;
    const button = element("button", { type: "button", title: what, ariaLabel: what }, number(images));
    button.addEventListener("click", () => onPick(classes[real].label, classes[predicted].label));
    made.append(button);
    return made;
  }

  const corner = element("th", { scope: "col" }, "true ╲ predicted");
  const head = element("tr", {}, corner, ...classes.map((each) => classHead("col", each)));
  const body = classes.map((each, real) =>
    element("tr", {}, classHead("row", each), ...classes.map((_, predicted) => cell(real, predicted))));
  return element("table", { className: "matrix" }, element("thead", {}, head), element("tbody", {}, ...body));
}

/* Many classes: one pixel or more a cell, and the pair under the pointer in words. */
function matrixMap(figures, onPick) {
  const { pairs, totals } = confusions(figures), { classes } = figures, side = classes.length;
  const scale = Math.max(1, Math.floor(900 / side));
  const canvas = element("canvas", { width: side * scale, height: side * scale, className: "map", role: "img" });
  canvas.ariaLabel = `Confusion matrix of ${side} classes; the table beside it has its numbers`;
  const context = canvas.getContext("2d"), colors = getComputedStyle(document.body);
  const [correct, wrong] = ["--accent", "--wrong"].map((name) => colors.getPropertyValue(name));
  for (const [real, predicted, images] of pairs) {
    context.fillStyle = real === predicted ? correct : wrong;
    context.globalAlpha = 0.15 + 0.85 * shade(images, totals[real]);
    context.fillRect(predicted * scale, real * scale, scale, scale);
  }
  const found = new Map(pairs.map(([real, predicted, images]) => [real * side + predicted, images]));
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    const place = (position, length) => Math.max(0, Math.min(side - 1, Math.floor((position / length) * side)));
    return [place(event.clientY - box.top, box.height), place(event.clientX - box.left, box.width)];
  };
  canvas.addEventListener("mousemove", (event) => {
    const [real, predicted] = at(event), images = found.get(real * side + predicted) ?? 0;
    canvas.title = `${asPair(classes[real], classes[predicted])}: ${counted(images, "image")}`;
  });
  canvas.addEventListener("click", (event) => {
    const [real, predicted] = at(event);
    if (found.has(real * side + predicted)) onPick(classes[real].label, classes[predicted].label);
  });
  return canvas;
}

function confusionTable(figures, onPick) {
  const { classes } = figures;
  const wrong = confusions(figures).pairs.filter(([real, predicted]) => real !== predicted);
  wrong.sort((one, other) => other[2] - one[2]);
  const lines = wrong.slice(0, MOST_PAIRS).map(([real, predicted, images]) => {
    const button = element("button", { type: "button", className: "link", title: "Show these images" }, number(images));
    button.addEventListener("click", () => onPick(classes[real].label, classes[predicted].label));
    return [shortLabel(classes[real].label), shortLabel(classes[predicted].label), button];
  });
  return numbersTable(["True label", "Predicted label", "Images"], lines);
}

/* A table under these titles; a cell is a text or an element. */
function numbersTable(titles, lines) {
  const row = (cells, tag) => element("tr", {}, ...cells.map((cell) => element(tag, {}, cell)));
  const head = row(titles, "th");
  for (const cell of head.cells) cell.scope = "col";
  const className = titles.length > 4 ? "numbers wide" : "numbers";
  const body = element("tbody", {}, ...lines.map((line) => row(line, "td")));
  return element("div", { className: "scroll", tabIndex: 0 },
    element("table", { className }, element("thead", {}, head), body));
}
