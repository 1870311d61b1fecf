// The accuracy of the model on images whose true labels are known, each figure as a plot and as numbers.

const MOST_MISTAKES = 24;

const interval = (share) => (share ? `${(100 * share.low).toFixed(1)}–${(100 * share.high).toFixed(1)} %` : "");
const shareText = (share) => (share ? percent(share.value) : "–");

/* Show the images of one cell of the confusion matrix. */
function pickPair(real, predicted) {
  clearFilters();
  view.pair = [numberOfLabel.get(real), numberOfLabel.get(predicted)];
  showImages();
}

/* Show the images of one true label, the most confident mistakes first. */
function pickTruth(label) {
  clearFilters();
  view.trueLabel = numberOfLabel.get(label);
  view.sort = "mistakes";
  byId("sort").value = view.sort;
  showImages();
}

function showImages() {
  showPart("images");
  viewChanged();
  scrollTo(0, 0);
}

function showPart(name) {
  for (const part of ["images", "accuracy"]) {
    byId(part).hidden = part !== name;
    byId(`show-${part}`).setAttribute("aria-pressed", String(part === name));
  }
}

function addSection(title, note, plot, numbers) {
  const pair = element("div", { className: "pair" },
    element("div", { className: "drawn" }, plot), element("div", { className: "beside" }, numbers));
  const hint = element("p", { className: "hint" }, note);
  byId("accuracy").append(element("section", {}, element("h2", {}, title), hint, pair));
}

function tiles(figures) {
  const values = [
    ["Accuracy (top-1)", shareText(figures.top1), interval(figures.top1)],
    ["Among the best five", shareText(figures.top5), interval(figures.top5)],
    ["Mean of the classes", shareText(figures.macro), interval(figures.macro)],
    ["Calibration error", figures.ece === null ? "–" : figures.ece.toFixed(4), `${figures.bins.length} bins`],
    ["Images", number(figures.images), counted(figures.classes.length, "class", "classes")],
  ];
  return element("div", { className: "tiles" }, ...values.map(([title, value, note]) =>
    element("div", { className: "tile" }, element("span", {}, title), element("b", {}, value), element("small", {}, note))));
}

/* Accuracy by score, over the line of perfect calibration. */
function reliabilityDiagram(bins) {
  const side = 300, left = 34, top = 8, bottom = 28;
  const x = (value) => left + value * side, y = (value) => top + (1 - value) * side;
  const parts = [];
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    const text = String(100 * value);
    parts.push(drawing("line", { x1: x(0), x2: x(1), y1: y(value), y2: y(value), class: "rule" }));
    parts.push(drawing("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, text));
    parts.push(drawing("text", { x: x(value), y: y(0) + 18, "text-anchor": "middle" }, text));
  }
  for (const { low, high, images, accuracy, confidence } of bins) {
    if (!images) continue;
    const from = x(low) + 1, width = x(high) - 1 - from, height = Math.max(1, accuracy * side), level = y(confidence);
    parts.push(drawing("rect", { x: from, y: y(0) - height, width, height, class: "accuracy" }));
    parts.push(drawing("line", { x1: from, x2: from + width, y1: level, y2: level, class: "mean" }));
  }
  parts.push(drawing("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), class: "perfect" }));
  const words = "Reliability diagram: accuracy by the score of the best label, in percent; the numbers are beside it";
  const viewBox = `0 0 ${left + side + 12} ${top + side + bottom}`;
  return drawing("svg", { viewBox, role: "img", "aria-label": words, class: "reliability" }, ...parts);
}

function reliabilityTable(bins) {
  const lines = bins.filter((bin) => bin.images).map((bin) => [
    `${(100 * bin.low).toFixed(0)}–${(100 * bin.high).toFixed(0)} %`, number(bin.images),
    percent(bin.confidence), percent(bin.accuracy)]);
  return numbersTable(["Score", "Images", "Mean score", "Accuracy"], lines);
}

function worstFirst({ classes }) {
  const measured = classes.filter((each) => each.recall);
  return measured.sort((one, other) => one.recall.value - other.recall.value || other.images - one.images);
}

/* The classes as bars; a click shows the images. */
function classBars(figures) {
  const lines = worstFirst(figures).slice(0, MOST_PAIRS).map(({ label, recall }) => {
    const button = barButton(shortLabel(label), percent(recall.value), recall.value, "Show its images");
    button.addEventListener("click", () => pickTruth(label));
    return element("li", {}, button);
  });
  return element("ol", { className: "class-bars" }, ...lines);
}

function classTable(figures) {
  const lines = worstFirst(figures).map((each) => [
    shortLabel(each.label), number(each.images), percent(each.recall.value), interval(each.recall),
    each.precision === null ? "–" : percent(each.precision), each.f1.toFixed(3)]);
  return numbersTable(["Class", "Images", "Accuracy", "95 % interval", "Precision", "F1"], lines);
}

function worstMistakes() {
  const wrong = [];
  for (let row = 0; row < rows; row++) if (isWrong(row)) wrong.push(row);
  return wrong.sort(SORTS.highest[1]).slice(0, MOST_MISTAKES);
}

function mistakePictures(wrong) {
  return element("div", { className: "strip" }, ...wrong.map((row) => {
    const words = element("span", {}, `${headline(row)}, is ${shortLabel(trueLabelOf(row))}`);
    const button = element("button", { type: "button", className: "mistake", title: pathOf(row) }, imageOf(row), words);
    button.addEventListener("click", () => {
      pickPair(trueLabelOf(row), labelOf(row));
      openLightbox(order.indexOf(row));
    });
    return button;
  }));
}

function mistakeTable(wrong) {
  return numbersTable(["Score", "True label", "Predicted label", "Image"], wrong.map((row) =>
    [scoreText(score[row]), shortLabel(trueLabelOf(row)), headline(row), element("span", { className: "path" }, pathOf(row))]));
}

function startAccuracy() {
  const { figures } = data;
  if (!figures) return;
  byId("tabs").hidden = false;
  byId("show-images").addEventListener("click", () => {
    showPart("images");
    layOut(arranged());
  });
  byId("show-accuracy").addEventListener("click", () => {
    showPart("accuracy");
    scrollTo(0, 0);
  });
  byId("accuracy").append(tiles(figures));
  const matrix = figures.classes.length <= MOST_NAMED ? matrixTable : matrixMap;
  addSection("Confusion matrix",
    "Rows are true labels, columns predicted ones; click a cell to see its images. The stronger its colour, the larger its " +
    "share of the true label.",
    matrix(figures, pickPair), confusionTable(figures, pickPair));
  const wrong = worstMistakes();
  if (wrong.length) {
    addSection("Most confident mistakes", "Often the true label is the mistake: look here first.",
      mistakePictures(wrong), mistakeTable(wrong));
  }
  addSection("Accuracy of each class", "The share of its images that are predicted correctly (recall), the worst class first.",
    classBars(figures), classTable(figures));
  addSection("Reliability",
    "A bar is the accuracy of the images of one range of scores, and the mark their mean score. Where the two are equal, on " +
    "the dashed line, the scores are well calibrated.",
    reliabilityDiagram(figures.bins), reliabilityTable(figures.bins));
}
