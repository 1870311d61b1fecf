// The view: which images pass the filters, in which order, and in which groups.

const view = {
  text: "", kind: "all", lowest: lowestScore, highest: highestScore,
  labels: new Set(), // numbers of predicted labels; empty for all
  pair: null, // true and predicted label of a cell of the confusion matrix
  trueLabel: null, // number of a true label
  sort: "highest", group: "label",
};

const KINDS = {
  all: ["All", () => true],
  predicted: ["Predicted", (row) => best[row] >= 0],
  correct: ["Correct", isCorrect],
  wrong: ["Wrong", isWrong],
  failed: ["Failed", (row) => failures.has(row)],
  unmarked: ["Not marked by me", (row) => !corrections.has(row)],
  corrected: ["Marked by me", (row) => corrections.has(row)],
  identical: ["With an identical one", (row) => identicalTo(row).length > 0],
};

let names = null; // in small letters, made when they are first needed
const lowerNames = () => (names ??= data.name.map((name) => name.toLowerCase()));
const lowerFolders = data.folders.map((folder) => folder.toLowerCase());
const lowerLabels = data.labels.map((label) => label.toLowerCase());

const compareTexts = (one, other) => (one < other ? -1 : one > other ? 1 : 0);
const folderOf = (row) => data.folders[data.folder[row]];
const byPath = (one, other) => compareTexts(folderOf(one), folderOf(other)) || compareTexts(data.name[one], data.name[other]);

/* Without a score an image comes last. */
const scored = (compare) => (one, other) =>
  Number(best[one] < 0) - Number(best[other] < 0) || compare(score[one], score[other]) || one - other;
const wrongFirst = (one, other) => Number(isWrong(other)) - Number(isWrong(one)) || SORTS.highest[1](one, other);

const SORTS = {
  highest: ["Score, highest first", scored((one, other) => other - one)],
  lowest: ["Score, lowest first", scored((one, other) => one - other)],
  name: ["Name", (one, other) => compareTexts(lowerNames()[one], lowerNames()[other]) || byPath(one, other)],
  folder: ["Folder", byPath],
  mistakes: ["Most confident mistakes", wrongFirst],
};

const UNMARKED = "not marked";

const GROUPS = {
  none: ["None", () => ""],
  label: ["Label", (row) => (failures.has(row) ? `failed: ${failures.get(row).code}` : labelOf(row) ?? "no label")],
  "true-label": ["True label", (row) => trueLabelOf(row) ?? "no true label"],
  given: ["My label", (row) => corrections.get(row) ?? UNMARKED],
  folder: ["Folder", (row) => data.folders[data.folder[row]] || "./"],
  identical: ["Identical images", (row) => {
    const members = identicalTo(row);
    return members.length ? `identical: ${pathOf(members[0])}` : "no identical image";
  }],
};

/* True if which images are shown, or where, changes with the corrections. */
const showsCorrections = () => ["unmarked", "corrected"].includes(view.kind) || view.group === "given";

function containsText(row, text) {
  if (lowerNames()[row].includes(text) || lowerFolders[data.folder[row]].includes(text)) return true;
  if (best[row] >= 0 && lowerLabels[best[row]].includes(text)) return true;
  if (trueLabels !== null && trueLabels[row] >= 0 && lowerLabels[trueLabels[row]].includes(text)) return true;
  const { code, message } = failures.get(row) ?? { code: "", message: "" };
  return `${corrections.get(row) ?? ""} ${code} ${message}`.toLowerCase().includes(text);
}

/* True for an image that passes all filters, but perhaps the one of scores. */
function passes(row, except = "") {
  const { lowest, highest, text } = view;
  const isNarrowed = lowest > lowestScore || highest < highestScore;
  if (except !== "scores" && isNarrowed && !(score[row] >= lowest && score[row] <= highest)) return false;
  if (view.labels.size && !view.labels.has(best[row])) return false;
  if (view.pair && !(trueLabels && trueLabels[row] === view.pair[0] && best[row] === view.pair[1])) return false;
  if (view.trueLabel !== null && !(trueLabels && trueLabels[row] === view.trueLabel)) return false;
  return KINDS[view.kind][1](row) && (!text || containsText(row, text));
}

/* The rows that pass, in order, and where each group begins: [name, first place, number of images]. */
function arranged() {
  const chosen = [];
  for (let row = 0; row < rows; row++) if (passes(row)) chosen.push(row);
  chosen.sort(SORTS[view.sort][1]);
  if (view.group === "none") return { order: chosen, groups: chosen.length ? [["", 0, chosen.length]] : [] };
  const members = new Map(), nameOf = GROUPS[view.group][1];
  for (const row of chosen) {
    const name = nameOf(row);
    const group = members.get(name);
    if (group) group.push(row);
    else members.set(name, [row]);
  }
  const byName = (one, other) => compareTexts(one[0], other[0]);
  const bySize = (one, other) => other[1].length - one[1].length || byName(one, other);
  const last = { identical: "no identical image", given: UNMARKED }[view.group];
  const inOrder = [...members].sort(view.group === "folder" ? byName : bySize);
  inOrder.sort((one, other) => Number(one[0] === last) - Number(other[0] === last));
  const groups = [], order = [];
  for (const [name, images] of inOrder) {
    groups.push([name, order.length, images.length]);
    for (const row of images) order.push(row);
  }
  return { order, groups };
}
