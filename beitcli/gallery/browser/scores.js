// The range of scores: two handles over the histogram of the images that pass the other filters.

const BINS = 40;
const STEPS = 1000; // of a handle

/* The score at a share of the range, and the share of a score. */
const scoreAt = (share) => lowestScore + (highestScore - lowestScore) * share;
const shareOf = (value) => (value - lowestScore) / (highestScore - lowestScore || 1);

const SVG = "http://www.w3.org/2000/svg";

/* An element of a drawing, with attributes, and texts or others inside. */
function drawing(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function drawHistogram() {
  const counts = new Array(BINS).fill(0);
  for (let row = 0; row < rows; row++) {
    if (best[row] < 0 || !passes(row, "scores")) continue;
    counts[Math.min(BINS - 1, Math.floor(shareOf(score[row]) * BINS))]++;
  }
  const most = Math.max(1, ...counts);
  const bars = counts.map((count, bin) => {
    // The root of a share, so that rare scores are seen beside common ones.
    const height = count ? Math.max(1.5, 40 * Math.sqrt(count / most)) : 0;
    const middle = scoreAt((bin + 0.5) / BINS);
    const name = middle >= view.lowest && middle <= view.highest ? "inside" : "outside";
    return drawing("rect", { x: bin + 0.08, y: 40 - height, width: 0.84, height, class: name });
  });
  const svg = byId("histogram");
  svg.setAttribute("viewBox", `0 0 ${BINS} 40`);
  svg.replaceChildren(...bars);
  byId("histogram-table").tBodies[0].replaceChildren(...counts.flatMap((count, bin) => {
    if (!count) return [];
    const [from, to] = [bin, bin + 1].map((edge) => scoreText(scoreAt(edge / BINS)));
    return [element("tr", {}, element("th", { scope: "row" }, `${from} to ${to}`), element("td", {}, number(count)))];
  }));
  byId("score-range").textContent = `${scoreText(view.lowest)} – ${scoreText(view.highest)}`;
}

function startScores(onChange) {
  const lowest = byId("lowest"), highest = byId("highest");
  for (const handle of [lowest, highest]) Object.assign(handle, { min: 0, max: STEPS, step: 1 });
  lowest.value = 0;
  highest.value = STEPS;
  const moved = (moving) => {
    // A handle stops at the other one.
    if (Number(lowest.value) > Number(highest.value)) moving.value = moving === lowest ? highest.value : lowest.value;
    view.lowest = Number(lowest.value) === 0 ? lowestScore : scoreAt(Number(lowest.value) / STEPS);
    view.highest = Number(highest.value) === STEPS ? highestScore : scoreAt(Number(highest.value) / STEPS);
    lowest.setAttribute("aria-valuetext", scoreText(view.lowest));
    highest.setAttribute("aria-valuetext", scoreText(view.highest));
    lowest.classList.toggle("above", Number(lowest.value) > STEPS / 2); // both can be reached where they meet
    onChange();
  };
  lowest.addEventListener("input", () => moved(lowest));
  highest.addEventListener("input", () => moved(highest));
}

function resetScores() {
  view.lowest = lowestScore;
  view.highest = highestScore;
  byId("lowest").value = 0;
  byId("highest").value = STEPS;
}
