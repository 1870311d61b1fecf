// Corrections: labels that the user gives to images, kept in this browser until they are saved or discarded.

const keptUnder = `beit corrections ${document.body.dataset.identity}`;

const corrections = new Map(); // row -> label
const elsewhere = new Map(); // path -> label, of images that an earlier version of this page had
const correctionListeners = [];
let keepsCorrections = true;
let areSaved = false; // since the last change

/* A label that the user gives is a correction, or says that the predicted one is correct. */
const isConfirmed = (row) => corrections.has(row) && corrections.get(row) === labelOf(row);
const isCorrected = (row) => corrections.has(row) && corrections.get(row) !== labelOf(row);

function loadCorrections() {
  try {
    const kept = Object.entries(JSON.parse(localStorage.getItem(keptUnder) ?? "{}"));
    for (const [path, label] of kept) if (typeof label === "string") elsewhere.set(path, label);
  } catch {
    keepsCorrections = false; // a browser that keeps nothing for local files
  }
  for (let row = 0; elsewhere.size && row < rows; row++) {
    const label = elsewhere.get(pathOf(row));
    if (label !== undefined) corrections.set(row, label);
  }
  for (const row of corrections.keys()) elsewhere.delete(pathOf(row));
}

function correctionsChanged() {
  areSaved = false;
  const here = Array.from(corrections, ([row, label]) => [pathOf(row), label]);
  try {
    localStorage.setItem(keptUnder, JSON.stringify(Object.fromEntries([...elsewhere, ...here])));
    keepsCorrections = true;
  } catch {
    keepsCorrections = false;
  }
  for (const listener of correctionListeners) listener();
}

/* Give the images a label, or with null take the one they were given back. */
function correct(images, label) {
  for (const row of images) {
    if (label === null) corrections.delete(row);
    else corrections.set(row, label);
  }
  correctionsChanged();
  const what = label === null ? "taken back" : `marked as ${label}`;
  announce(`${counted(images.length, "image")} ${what}`);
}

function discardCorrections() {
  corrections.clear();
  correctionsChanged();
}

const csvField = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

/* The table that `beit train --labels`, `beit eval --labels` and `beit sort --corrections` take. */
function correctionsTable() {
  const inOrder = [...corrections].sort(([one], [other]) => one - other);
  const lines = inOrder.map(([row, label]) => `${csvField(pathOf(row))},${csvField(label)}\n`);
  return `path,label\n${lines.join("")}`;
}

function saveCorrections() {
  const address = URL.createObjectURL(new Blob([correctionsTable()], { type: "text/csv" }));
  element("a", { href: address, download: "corrections.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
  areSaved = true;
  drawActions();
}
