// The images of the page by their row: columns of numbers and short texts, as gallery/page_data.py writes them.

const byId = (id) => document.getElementById(id);

const data = JSON.parse(byId("data").textContent);
const embedded = JSON.parse(byId("thumbnails").textContent);
byId("data").remove(); // a second copy of some megabytes
byId("thumbnails").remove();

const rows = data.name.length;
const failures = new Map(data.failures.map(([row, code, message]) => [row, { code, message }]));
const unseen = new Map(data.unseen.map(([row, code, message]) => [row, { code, message }]));

const best = Int32Array.from(data.predictions, (scores) => (scores.length ? scores[0] : -1));
const score = Float64Array.from(data.predictions, (scores) => (scores.length ? scores[1] : NaN));
const trueLabels = data.true ? Int32Array.from(data.true) : null;

/* Scores are from 0 to 1, unless they are quantities of a regression, whose own range counts. */
const extremes = score.reduce(
  ([low, high], value) => [value < low ? value : low, value > high ? value : high], [Infinity, -Infinity]);
const inPercent = !(extremes[0] < 0 || extremes[1] > 1);
const [lowestScore, highestScore] = inPercent ? [0, 1] : extremes;

const pathOf = (row) => data.folders[data.folder[row]] + data.name[row];
const labelOf = (row) => (best[row] < 0 ? null : data.labels[best[row]]);
const trueLabelOf = (row) => (trueLabels && trueLabels[row] >= 0 ? data.labels[trueLabels[row]] : null);
const isWrong = (row) => trueLabels !== null && trueLabels[row] >= 0 && best[row] >= 0 && best[row] !== trueLabels[row];
const isCorrect = (row) => trueLabels !== null && trueLabels[row] >= 0 && best[row] === trueLabels[row];

/* The name that people use: of `tabby, tabby cat` the first one. */
const shortLabel = (label) => label.split(",", 1)[0];

const number = (count) => count.toLocaleString("en");
const counted = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
const scoreText = (value) => (inPercent ? percent(value) : value.toPrecision(4));

/* The headline of an image: its label, or why it has none. */
function headline(row) {
  if (failures.has(row)) return failures.get(row).code;
  return labelOf(row) === null ? "no label" : shortLabel(labelOf(row));
}

function thumbnailAddress(row) {
  const name = data.thumbnails[row];
  if (!name) return null;
  if (data.thumbnail_folder === null) return `data:image/webp;base64,${embedded[name]}`;
  return `${encodeURIComponent(data.thumbnail_folder)}/${name.slice(0, 2)}/${name}.thumbnail`;
}

/* Images whose bytes are identical: the rows by the second half of the name of their thumbnail. */
const identical = new Map();
{
  const first = new Map(); // the one row of most digests, without a list of its own
  for (let row = 0; row < rows; row++) {
    if (!data.thumbnails[row]) continue;
    const digest = data.thumbnails[row].slice(17);
    if (identical.has(digest)) identical.get(digest).push(row);
    else if (first.has(digest)) identical.set(digest, [first.get(digest), row]);
    else first.set(digest, row);
  }
}

const identicalTo = (row) => (data.thumbnails[row] && identical.get(data.thumbnails[row].slice(17))) || [];

/* An element with properties and children; texts are texts, never HTML. */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function announce(text) {
  byId("announce").textContent = text;
}
