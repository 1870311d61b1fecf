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
const truth = data.true ? Int32Array.from(data.true) : null;

/* Scores are in [0, 1], unless they are those of a regression. */
const [lowestScore, highestScore] = score.reduce(
  ([low, high], value) => [value < low ? value : low, value > high ? value : high], [0, 1]);
const inPercent = lowestScore >= 0 && highestScore <= 1;

const pathOf = (row) => data.folders[data.folder[row]] + data.name[row];
const labelOf = (row) => (best[row] < 0 ? null : data.labels[best[row]]);
const truthOf = (row) => (truth && truth[row] >= 0 ? data.labels[truth[row]] : null);
const isWrong = (row) => truth !== null && truth[row] >= 0 && best[row] >= 0 && best[row] !== truth[row];
const isCorrect = (row) => truth !== null && truth[row] >= 0 && best[row] === truth[row];

/* The name that people use: of `tabby, tabby cat` the first one. */
const shortLabel = (label) => label.split(",", 1)[0];

const counted = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
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
for (let row = 0; row < rows; row++) {
  if (!data.thumbnails[row]) continue;
  const digest = data.thumbnails[row].slice(17);
  const others = identical.get(digest);
  if (others) others.push(row);
  else identical.set(digest, [row]);
}
for (const [digest, members] of identical) if (members.length < 2) identical.delete(digest);

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
