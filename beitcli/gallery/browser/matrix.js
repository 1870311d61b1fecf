// The confusion matrix: a table of cells to click for a few classes, a heat map for many.

const MOST_NAMED = 30; // classes whose cells have names
const MOST_PAIRS = 300; // in the table of confusions

const cellName = (label) => shortLabel(label);

/* The number that the page gives to a class of the figures. */
const numberOfLabel = new Map(data.labels.map((label, number) => [label, number]));

function confusions(figures) {
  const place = new Map(figures.classes.map((each, number) => [each.index, number]));
  const totals = new Array(figures.classes.length).fill(0);
  const pairs = figures.confusion.map(({ true: real, predicted, images }) => [place.get(real), place.get(predicted), images]);
  for (const [real, , images] of pairs) totals[real] += images;
  return { pairs, totals };
}

/* Colours show the square root of a share, so that rare confusions are seen. */
const shade = (images, total) => (total ? Math.sqrt(images / total) : 0);

function matrixTable(figures, onPick) {
  const { pairs, totals } = confusions(figures), { classes } = figures;
  const counts = classes.map(() => new Array(classes.length).fill(0));
  for (const [real, predicted, images] of pairs) counts[real][predicted] = images;
  const head = element("tr", {}, element("th", { scope: "col", textContent: "true ╲ predicted" }),
    ...classes.map((each) => element("th", { scope: "col", title: each.label }, element("span", { textContent: cellName(each.label) }))));
  const body = classes.map((each, real) => {
    const cells = counts[real].map((images, predicted) => {
      const cell = element("td", { className: real === predicted ? "diagonal" : "" });
      if (!images) return cell;
      cell.style.setProperty("--shade", shade(images, totals[real]));
      const what = `${counted(images, "image")}: ${cellName(each.label)} predicted as ${cellName(classes[predicted].label)}`;
      const button = element("button", { type: "button", textContent: images.toLocaleString("en"), title: what });
      button.setAttribute("aria-label", what);
      if (shade(images, totals[real]) > 0.62) cell.classList.add("dark");
      button.addEventListener("click", () => onPick(each.label, classes[predicted].label));
      cell.append(button);
      return cell;
    });
    return element("tr", {}, element("th", { scope: "row", textContent: cellName(each.label), title: each.label }), ...cells);
  });
  return element("table", { className: "matrix" }, element("thead", {}, head), element("tbody", {}, ...body));
}

/* Many classes: one pixel or more a cell, and the pair under the pointer in words. */
function matrixMap(figures, onPick) {
  const { pairs, totals } = confusions(figures), { classes } = figures, side = classes.length;
  const scale = Math.max(1, Math.floor(900 / side)), canvas = element("canvas", { width: side * scale, height: side * scale, className: "map" });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Confusion matrix of ${side} classes; the table beside it has its numbers`);
  const context = canvas.getContext("2d");
  const color = getComputedStyle(document.body).getPropertyValue("--accent");
  context.fillStyle = color;
  for (const [real, predicted, images] of pairs) {
    context.globalAlpha = 0.15 + 0.85 * shade(images, totals[real]);
    context.fillRect(predicted * scale, real * scale, scale, scale);
  }
  const found = new Map(pairs.map(([real, predicted, images]) => [real * side + predicted, images]));
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    const cell = (position, length) => Math.max(0, Math.min(side - 1, Math.floor((position / length) * side)));
    return [cell(event.clientY - box.top, box.height), cell(event.clientX - box.left, box.width)];
  };
  canvas.addEventListener("mousemove", (event) => {
    const [real, predicted] = at(event);
    canvas.title = `${cellName(classes[real].label)} predicted as ${cellName(classes[predicted].label)}: ${counted(found.get(real * side + predicted) ?? 0, "image")}`;
  });
  canvas.addEventListener("click", (event) => {
    const [real, predicted] = at(event);
    if (found.has(real * side + predicted)) onPick(classes[real].label, classes[predicted].label);
  });
  return canvas;
}

function confusionTable(figures, onPick) {
  const { pairs } = confusions(figures), { classes } = figures;
  const wrong = pairs.filter(([real, predicted]) => real !== predicted).sort((one, other) => other[2] - one[2]);
  const lines = wrong.slice(0, MOST_PAIRS).map(([real, predicted, images]) => {
    const button = element("button", { type: "button", className: "link", textContent: images.toLocaleString("en"), title: "Show these images" });
    button.addEventListener("click", () => onPick(classes[real].label, classes[predicted].label));
    return element("tr", {}, element("td", { textContent: cellName(classes[real].label), title: classes[real].label }),
      element("td", { textContent: cellName(classes[predicted].label), title: classes[predicted].label }), element("td", {}, button));
  });
  return numbersTable(["True label", "Predicted label", "Images"], lines);
}

function numbersTable(titles, lines) {
  const head = element("tr", {}, ...titles.map((textContent) => element("th", { scope: "col", textContent })));
  return element("div", { className: "scroll", tabIndex: 0 },
    element("table", { className: titles.length > 4 ? "numbers wide" : "numbers" }, element("thead", {}, head), element("tbody", {}, ...lines)));
}
