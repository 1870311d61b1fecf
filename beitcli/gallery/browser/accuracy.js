// The accuracy of the model on images whose true labels are known, each figure as a picture and as numbers.

const interval = (share) => (share ? `${(100 * share.low).toFixed(1)}–${(100 * share.high).toFixed(1)} %` : "");
const shareText = (share) => (share ? percent(share.value) : "–");

/* Show the images of one cell of the confusion matrix. */
function pickPair(real, predicted) {
  clearFilters();
  view.pair = [numberOfLabel.get(real), numberOfLabel.get(predicted)];
  showImages();
}

function pickTruth(label) {
  clearFilters();
  view.truth = numberOfLabel.get(label);
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

function section(title, note, picture, numbers) {
  const parts = element("div", { className: "pair" }, element("div", { className: "drawn" }, picture), element("div", { className: "beside" }, numbers));
  return element("section", {}, element("h2", { textContent: title }), element("p", { className: "hint", textContent: note }), parts);
}

function tile(title, value, note) {
  return element("div", { className: "tile" }, element("span", { textContent: title }), element("b", { textContent: value }), element("small", { textContent: note }));
}

function tiles(figures) {
  return element("div", { className: "tiles" },
    tile("Accuracy (top-1)", shareText(figures.top1), interval(figures.top1)),
    tile("Among the best five", shareText(figures.top5), interval(figures.top5)),
    tile("Mean of the classes", shareText(figures.macro), interval(figures.macro)),
    tile("Calibration error", figures.ece === null ? "–" : figures.ece.toFixed(4), `${figures.bins.length} bins`),
    tile("Images", figures.images.toLocaleString("en"), `${counted(figures.classes.length, "class", "classes")}`));
}

/* Accuracy by score, over the line of perfect calibration. */
function reliabilityDiagram(bins) {
  const side = 300, left = 34, bottom = 28, x = (value) => left + value * side, y = (value) => 8 + (1 - value) * side;
  const parts = [];
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    parts.push(drawing("line", { x1: x(0), x2: x(1), y1: y(value), y2: y(value), class: "rule" }));
    parts.push(drawing("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, String(100 * value)));
    parts.push(drawing("text", { x: x(value), y: y(0) + 18, "text-anchor": "middle" }, String(100 * value)));
  }
  for (const bin of bins) {
    if (!bin.images) continue;
    parts.push(drawing("rect", { x: x(bin.low) + 1, y: y(bin.accuracy), width: (bin.high - bin.low) * side - 2, height: Math.max(1, bin.accuracy * side), class: "accuracy" }));
    parts.push(drawing("line", { x1: x(bin.low) + 1, x2: x(bin.high) - 1, y1: y(bin.confidence), y2: y(bin.confidence), class: "mean" }));
  }
  parts.push(drawing("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), class: "perfect" }));
  const label = "Reliability diagram: accuracy by the score of the best label, in percent; the table beside it has its numbers";
  return drawing("svg", { viewBox: `0 0 ${left + side + 12} ${8 + side + bottom}`, role: "img", "aria-label": label, class: "reliability" }, ...parts);
}

function reliabilityTable(bins) {
  return numbersTable(["Score", "Images", "Mean score", "Accuracy"], bins.filter((bin) => bin.images).map((bin) => element("tr", {},
    element("td", { textContent: `${(100 * bin.low).toFixed(0)}–${(100 * bin.high).toFixed(0)} %` }), element("td", { textContent: bin.images.toLocaleString("en") }),
    element("td", { textContent: percent(bin.confidence) }), element("td", { textContent: percent(bin.accuracy) }))));
}

const measuredClasses = (figures) =>
  figures.classes.filter((each) => each.recall).sort((one, other) => one.recall.value - other.recall.value || other.images - one.images);

/* The classes as bars, the worst first; a click shows the images. */
function classBars(figures) {
  const lines = measuredClasses(figures).slice(0, MOST_PAIRS).map((each) => {
    const bar = element("span", { className: "bar" });
    bar.style.setProperty("--share", each.recall.value);
    const button = element("button", { type: "button", className: "as-label", title: "Show its images" },
      element("span", { className: "of", textContent: cellName(each.label) }), element("span", { className: "value", textContent: percent(each.recall.value) }), bar);
    button.addEventListener("click", () => pickTruth(each.label));
    return element("li", {}, button);
  });
  return element("ol", { className: "class-bars" }, ...lines);
}

function classTable(figures) {
  return numbersTable(["Class", "Images", "Accuracy", "95 % interval", "Precision", "F1"], measuredClasses(figures).map((each) => element("tr", {},
    element("td", { textContent: cellName(each.label), title: each.label }), element("td", { textContent: each.images.toLocaleString("en") }),
    element("td", { textContent: percent(each.recall.value) }), element("td", { textContent: interval(each.recall) }),
    element("td", { textContent: each.precision === null ? "–" : percent(each.precision) }), element("td", { textContent: each.f1.toFixed(3) }))));
}

function mistakes() {
  const wrong = [];
  for (let row = 0; row < rows; row++) if (isWrong(row)) wrong.push(row);
  return wrong.sort(SORTS.highest[1]).slice(0, 24);
}

function mistakePictures(wrong) {
  return element("div", { className: "strip" }, ...wrong.map((row) => {
    const button = element("button", { type: "button", className: "mistake", title: pathOf(row) }, picture(row),
      element("span", { textContent: `${headline(row)}, is ${shortLabel(truthOf(row))}` }));
    button.addEventListener("click", () => {
      pickPair(truthOf(row), labelOf(row));
      openLightbox(order.indexOf(row));
    });
    return button;
  }));
}

function mistakeTable(wrong) {
  return numbersTable(["Score", "True label", "Predicted label", "Image"], wrong.map((row) => element("tr", {},
    element("td", { textContent: scoreText(score[row]) }), element("td", { textContent: shortLabel(truthOf(row)) }),
    element("td", { textContent: headline(row) }), element("td", { className: "path", textContent: pathOf(row) }))));
}

function startAccuracy() {
  const { figures } = data;
  if (!figures) return;
  byId("tabs").hidden = false;
  byId("show-images").addEventListener("click", () => { showPart("images"); layOut(arranged()); });
  byId("show-accuracy").addEventListener("click", () => { showPart("accuracy"); scrollTo(0, 0); });
  const few = figures.classes.length <= MOST_NAMED, wrong = mistakes();
  byId("accuracy").append(tiles(figures));
  byId("accuracy").append(section("Confusion matrix", "Rows are true labels, columns predicted ones; click a cell to see its images. Darker is a larger share of the true label.",
    (few ? matrixTable : matrixMap)(figures, pickPair), confusionTable(figures, pickPair)));
  if (wrong.length) byId("accuracy").append(section("Most confident mistakes", "Often the true label is the mistake: look here first.", mistakePictures(wrong), mistakeTable(wrong)));
  byId("accuracy").append(section("Accuracy of each class", "The share of its images that are predicted correctly (recall), the worst class first.", classBars(figures), classTable(figures)));
  byId("accuracy").append(section("Reliability", "A bar is the accuracy of the images of one range of scores, and the mark their mean score: perfectly calibrated, both are equal, on the dashed line.",
    reliabilityDiagram(figures.bins), reliabilityTable(figures.bins)));
}
