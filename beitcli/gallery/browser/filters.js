// The filters beside the grid and the choices above it.

const MOST_LABELS = 300; // in the list at once

const countByLabel = new Map(); // number of a predicted label -> its images
for (const label of best) if (label >= 0) countByLabel.set(label, (countByLabel.get(label) ?? 0) + 1);
const labelsByCount = [...countByLabel].sort(([one, images], [other, others]) =>
  others - images || compareTexts(lowerLabels[one], lowerLabels[other]));

function fillChoice(id, choices, isOffered = () => true) {
  const options = Object.entries(choices).filter(([value]) => isOffered(value));
  byId(id).replaceChildren(...options.map(([value, [text]]) => element("option", { value, textContent: text })));
  byId(id).value = view[id];
}

function offeredKinds() {
  const counts = {};
  for (const [kind, [, test]] of Object.entries(KINDS)) {
    counts[kind] = 0;
    for (let row = 0; row < rows; row++) counts[kind] += test(row);
  }
  return counts;
}

function fillKinds() {
  const counts = offeredKinds();
  const tells = (kind) => counts[kind] > 0 && counts[kind] < rows; // others show all, or nothing
  const offered = Object.keys(KINDS).filter((kind) => tells(kind) || kind === "all" || kind === view.kind);
  byId("kind").replaceChildren(...offered.map((kind) =>
    element("option", { value: kind, textContent: `${KINDS[kind][0]} (${number(counts[kind])})` })));
  byId("kind").value = view.kind;
}

function fillLabels() {
  const wanted = byId("find-label").value.trim().toLowerCase();
  const found = labelsByCount.filter(([label]) => lowerLabels[label].includes(wanted));
  const most = labelsByCount.length ? labelsByCount[0][1] : 1;
  const choices = found.slice(0, MOST_LABELS).map(([label, count]) => labelChoice(label, count, most));
  byId("label-list").replaceChildren(...choices);
  byId("more-labels").hidden = found.length <= MOST_LABELS;
  byId("more-labels").textContent = `${counted(found.length - MOST_LABELS, "more label")}: find them by name.`;
  byId("all-labels").hidden = !view.labels.size;
}

function labelChoice(label, count, most) {
  const box = element("input", { type: "checkbox", checked: view.labels.has(label) });
  box.addEventListener("change", () => {
    box.checked ? view.labels.add(label) : view.labels.delete(label);
    byId("all-labels").hidden = !view.labels.size;
    viewChanged();
  });
  const share = element("span", { className: "share" });
  share.style.setProperty("--share", count / most);
  const title = data.labels[label], name = element("span", { className: "of", title }, shortLabel(title));
  return element("label", { className: "choice" }, box, name, element("span", { className: "number" }, number(count)), share);
}

/* What of the filters is on, in words. */
function filtersInWords() {
  const parts = [];
  const named = (label) => shortLabel(data.labels[label]);
  if (view.pair) parts.push(`${named(view.pair[0])} predicted as ${named(view.pair[1])}`);
  if (view.trueLabel !== null) parts.push(`true label ${named(view.trueLabel)}`);
  return parts.length ? `: ${parts.join(", ")}` : "";
}

function isFiltered() {
  return view.text || view.kind !== "all" || view.labels.size || view.pair || view.trueLabel !== null ||
    view.lowest > lowestScore || view.highest < highestScore;
}

function clearFilters() {
  Object.assign(view, { text: "", kind: "all", pair: null, trueLabel: null });
  view.labels.clear();
  resetScores();
  byId("search").value = "";
  byId("find-label").value = "";
  fillKinds();
  fillLabels();
}

/* Arrange and draw again after any change of the view. */
function viewChanged() {
  const arrangement = arranged();
  current = 0;
  layOut(arrangement);
  drawHistogram();
  const passing = arrangement.order.length, some = passing === rows ? "" : `${number(passing)} of `;
  const sampled = data.left_out ? ` (a sample: ${number(data.left_out)} more are left out)` : "";
  byId("count").textContent = `${some}${counted(rows, "image")}${filtersInWords()}${sampled}`;
  byId("nothing").hidden = arrangement.order.length > 0;
  byId("clear-filters").hidden = !isFiltered();
  if (scrollY > grid.offsetTop) scrollTo(0, Math.max(0, grid.offsetTop - 80));
}

/* Draw again after a change of the corrections. Under the large view the images stay where they are. */
function showCorrections() {
  if (showsCorrections() && !lightbox.open) viewChanged();
  else redraw();
}

function startFilters() {
  fillKinds();
  fillChoice("group", GROUPS, (value) => (value !== "true-label" || trueLabels) && (value !== "identical" || identical.size));
  fillChoice("sort", SORTS, (value) => value !== "mistakes" || trueLabels);
  byId("find-label").hidden = labelsByCount.length <= 12;
  fillLabels();
  let typing = 0;
  byId("search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      view.text = byId("search").value.trim().toLowerCase();
      viewChanged();
    }, rows > 5000 ? 200 : 0);
  });
  for (const id of ["kind", "group", "sort"]) {
    byId(id).addEventListener("change", () => {
      view[id] = byId(id).value;
      viewChanged();
    });
  }
  byId("find-label").addEventListener("input", fillLabels);
  byId("all-labels").addEventListener("click", () => {
    view.labels.clear();
    fillLabels();
    viewChanged();
  });
  byId("clear-filters").addEventListener("click", () => {
    clearFilters();
    viewChanged();
  });
  byId("toggle-filters").addEventListener("click", () => {
    const isOpen = byId("filters").classList.toggle("open");
    byId("toggle-filters").setAttribute("aria-expanded", String(isOpen));
  });
  startScores(viewChanged);
}
