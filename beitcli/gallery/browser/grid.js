// The grid: only the lines near the window exist as elements, so that 100,000 images cost what a hundred do.

const grid = byId("grid");
const MARGIN = 900; // pixels above and below the window that are drawn too
const MOST_PRINTED = 2000; // images

const selection = new Set();
const selectionListeners = [];

let order = []; // rows in the order of the view
let lines = []; // { top, group } for a heading, { top, start, end } for cells
let cellLines = []; // numbers of the lines that are no headings
let shape = { columns: 1, width: 0, line: 0, heading: 0, gap: 0 };
let current = 0; // place in the order that has the focus
let anchor = 0; // place from which Shift extends the selection
let hasFocus = false;
const drawn = new Map(); // number of a line -> its element

function measured() {
  const style = getComputedStyle(grid), pixels = (name) => parseFloat(style.getPropertyValue(name));
  const gap = pixels("--gap"), least = pixels("--card");
  const columns = Math.max(2, Math.floor((grid.clientWidth + gap) / (least + gap)));
  const width = (grid.clientWidth - gap * (columns - 1)) / columns;
  const text = pixels(trueLabels ? "--text-with-true-label" : "--text");
  return { columns, width, gap, line: Math.round(width * 0.75 + text) + gap, heading: pixels("--heading") };
}

/* Lay out the images of the view, and draw those that are seen. */
function layOut({ order: rowsInOrder, groups }) {
  order = rowsInOrder;
  shape = measured();
  lines = [];
  cellLines = [];
  let top = 0;
  for (const group of groups) {
    const [name, first, count] = group;
    if (view.group !== "none") {
      lines.push({ top, group, height: shape.heading });
      top += shape.heading;
    }
    for (let start = first; start < first + count; start += shape.columns) {
      cellLines.push(lines.length);
      lines.push({ top, start, end: Math.min(start + shape.columns, first + count), height: shape.line });
      top += shape.line;
    }
  }
  grid.style.height = `${top}px`;
  grid.style.setProperty("--width", `${shape.width}px`);
  grid.setAttribute("aria-rowcount", lines.length);
  current = Math.min(current, Math.max(0, order.length - 1));
  anchor = current;
  for (const line of drawn.values()) line.remove();
  drawn.clear();
  draw();
}

/* The number of the last line that begins at or above a height. */
function lineAt(height) {
  let low = 0, high = lines.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (lines[middle].top <= height) low = middle;
    else high = middle - 1;
  }
  return low;
}

/* The number of the line of cells that holds a place. */
function lineOfPlace(place) {
  let low = 0, high = cellLines.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (lines[cellLines[middle]].start <= place) low = middle;
    else high = middle - 1;
  }
  return cellLines[low];
}

function draw(everything = false) {
  if (!lines.length) return;
  const above = grid.getBoundingClientRect().top;
  const first = everything ? 0 : lineAt(-above - MARGIN);
  const last = everything ? lines.length - 1 : lineAt(-above + innerHeight + MARGIN);
  const focused = hasFocus && order.length ? lineOfPlace(current) : -1;
  for (const [number, line] of drawn) {
    if ((number < first || number > last) && number !== focused) {
      line.remove();
      drawn.delete(number);
    }
  }
  for (let number = first; number <= last; number++) {
    if (drawn.has(number)) continue;
    const line = lines[number].group ? headingLine(lines[number]) : cellLine(lines[number]);
    line.setAttribute("aria-rowindex", number + 1);
    line.style.transform = `translateY(${lines[number].top}px)`;
    line.style.height = `${lines[number].height}px`;
    drawn.set(number, line);
    const following = [...grid.children].find((other) => other.getAttribute("aria-rowindex") > number + 1);
    grid.insertBefore(line, following ?? null); // in reading order
  }
}

function headingLine({ group: [name, first, count] }) {
  const title = element("h2", { textContent: name });
  const number = element("span", { className: "number", textContent: counted(count, "image") });
  const all = element("button", { type: "button", className: "quiet", textContent: "Select all" });
  all.addEventListener("click", () => select(order.slice(first, first + count), true));
  const cell = element("div", { role: "rowheader", className: "heading" }, title, number, all);
  return element("div", { role: "row", className: "line heading-line" }, cell);
}

function cellLine({ start, end }) {
  const line = element("div", { role: "row", className: "line cells" });
  for (let place = start; place < end; place++) line.append(card(place));
  return line;
}

/* The words of one card, also for those who cannot see it. */
function described(row) {
  const parts = [headline(row)];
  if (best[row] >= 0) parts.push(scoreText(score[row]));
  if (trueLabelOf(row) !== null && isWrong(row)) parts.push(`true label ${shortLabel(trueLabelOf(row))}`);
  if (isConfirmed(row)) parts.push("confirmed");
  if (isCorrected(row)) parts.push(`corrected to ${corrections.get(row)}`);
  return `${parts.join(", ")}: ${data.name[row]}`;
}

function imageOf(row) {
  const address = thumbnailAddress(row);
  if (address === null) return missingPicture(row);
  const image = element("img", { alt: `${headline(row)}: ${data.name[row]}`, decoding: "async", draggable: false });
  image.addEventListener("error", () => image.replaceWith(missingPicture(row)), { once: true });
  image.src = address;
  return image;
}

function missingPicture(row) {
  const reason = failures.get(row) ?? unseen.get(row);
  const text = element("span", { textContent: reason ? reason.message : "no thumbnail here" });
  return element("div", { className: "missing" }, element("b", { textContent: reason ? reason.code : "image" }), text);
}

function card(place) {
  const row = order[place];
  const made = element("div", { role: "gridcell", className: "card", tabIndex: place === current ? 0 : -1 });
  made.dataset.place = place;
  made.setAttribute("aria-label", described(row));
  made.setAttribute("aria-selected", String(selection.has(row)));
  const check = element("span", { className: "check", title: "Select (Space)" });
  check.setAttribute("aria-hidden", "true");
  const frame = element("div", { className: "image" }, imageOf(row), check);
  const copies = identicalTo(row).length;
  if (copies) frame.append(element("span", { className: "copies", textContent: `${copies} identical` }));
  const label = element("span", { className: "label", textContent: headline(row), title: labelOf(row) ?? "" });
  const value = element("span", { className: "score", textContent: best[row] < 0 ? "" : scoreText(score[row]) });
  const text = element("div", { className: "text" }, element("div", { className: "first" }, label, value));
  if (trueLabels) text.append(trueLabelLine(row));
  text.append(element("div", { className: "name", textContent: data.name[row], title: pathOf(row) }));
  made.append(frame, text);
  made.classList.toggle("wrong", isWrong(row));
  made.classList.toggle("failed", failures.has(row));
  if (corrections.has(row)) {
    made.classList.add(isConfirmed(row) ? "confirmed" : "corrected");
    const given = corrections.get(row), shownLabel = data.labels.includes(given) ? shortLabel(given) : given;
    const textContent = isConfirmed(row) ? `✓ ${shownLabel}` : shownLabel;
    frame.append(element("span", { className: "given", textContent, title: given }));
  }
  return made;
}

function trueLabelLine(row) {
  const label = trueLabelOf(row);
  if (label === null) return element("div", { className: "true-label" });
  if (isCorrect(row)) return element("div", { className: "true-label correct", textContent: "✓ correct" });
  return element("div", { className: "true-label", textContent: `✗ is ${shortLabel(label)}`, title: label });
}

/* Draw all visible cards anew, after a change of the selection or the corrections. */
function redraw() {
  for (const line of drawn.values()) line.remove();
  drawn.clear();
  draw();
  if (hasFocus) focusCurrent();
}

function select(images, selected) {
  for (const row of images) selected ? selection.add(row) : selection.delete(row);
  for (const cell of grid.querySelectorAll(".card")) cell.ariaSelected = String(selection.has(order[cell.dataset.place]));
  for (const listener of selectionListeners) listener();
}

function selectTo(place) {
  const [from, to] = place < anchor ? [place, anchor] : [anchor, place];
  select(order.slice(from, to + 1), true);
}

function toggle(place) {
  anchor = place;
  select([order[place]], !selection.has(order[place]));
}

const cardAt = (place) => grid.querySelector(`.card[data-place="${place}"]`);

function focusCurrent() {
  cardAt(current)?.focus({ preventScroll: true });
}

/* Move the focus to a place, and scroll until it is seen; not under a pointer, which would then be elsewhere. */
function goTo(place, focuses = true, scrolls = true) {
  if (!order.length) return;
  const before = cardAt(current);
  if (before) before.tabIndex = -1;
  current = Math.max(0, Math.min(order.length - 1, place));
  const { top, height } = lines[lineOfPlace(current)];
  const at = grid.getBoundingClientRect().top + top;
  const bar = document.querySelector(".toolbar").getBoundingClientRect().height + 8;
  const below = byId("actions").hidden ? 8 : byId("actions").getBoundingClientRect().height + 8;
  if (!scrolls) draw();
  else if (at < bar) scrollBy(0, at - bar);
  else if (at + height > innerHeight - below) scrollBy(0, at + height - innerHeight + below);
  draw();
  const now = cardAt(current);
  if (now) now.tabIndex = 0;
  if (focuses) focusCurrent();
}

function onGridKey(event) {
  if (!order.length || event.target.closest("button") || event.altKey) return;
  const line = lineOfPlace(current), column = current - lines[line].start;
  const vertical = (step) => {
    const target = lines[cellLines[cellLines.indexOf(line) + step]];
    return target ? Math.min(target.start + column, target.end - 1) : current;
  };
  const page = Math.max(1, Math.floor(innerHeight / shape.line) - 1) * shape.columns;
  const moves = {
    ArrowLeft: () => current - 1, ArrowRight: () => current + 1,
    ArrowUp: () => vertical(-1), ArrowDown: () => vertical(1),
    PageUp: () => current - page, PageDown: () => current + page,
    Home: () => 0, End: () => order.length - 1,
  };
  if (moves[event.key]) {
    goTo(moves[event.key]());
    if (event.shiftKey) selectTo(current);
    else anchor = current;
  } else if (event.key === "Enter") openLightbox(current);
  else if (event.key === " ") toggle(current);
  else if (event.key === "a" && (event.ctrlKey || event.metaKey)) select(order, true);
  else if (event.key === "Escape" && selection.size) select([...selection], false);
  else if (event.key === "c" && !event.ctrlKey && !event.metaKey) {
    if (!selection.size) toggle(current);
    byId("new-label").focus();
  } else return;
  event.preventDefault();
}

function onGridClick(event) {
  const cell = event.target.closest(".card");
  if (!cell) return;
  const place = Number(cell.dataset.place);
  const selects = event.shiftKey || event.ctrlKey || event.metaKey || event.target.closest(".check");
  goTo(place, true, !selects);
  if (event.shiftKey) selectTo(place);
  else if (selects) toggle(place);
  else openLightbox(place);
}

/* Ctrl A before any image has the focus. */
function onPageKey(event) {
  const isElsewhere = event.defaultPrevented || lightbox.open || byId("images").hidden || event.target.closest("input");
  if (isElsewhere || event.key !== "a" || !(event.ctrlKey || event.metaKey)) return;
  select(order, true);
  event.preventDefault();
}

/* Draw all images that pass the filters, up to a number that a printer stands. */
function drawForPrint() {
  const { order: all, groups } = arranged();
  byId("cut").hidden = all.length <= MOST_PRINTED;
  byId("cut").textContent = `Printed: the first ${number(MOST_PRINTED)} of ${counted(all.length, "image")}.`;
  const printed = groups.filter(([, first]) => first < MOST_PRINTED);
  layOut({
    order: all.slice(0, MOST_PRINTED),
    groups: printed.map(([name, first, count]) => [name, first, Math.min(count, MOST_PRINTED - first)]),
  });
  draw(true);
}

function startGrid() {
  let waiting = false;
  const later = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  };
  addEventListener("scroll", later, { passive: true });
  let width = grid.clientWidth;
  new ResizeObserver(() => {
    if (grid.clientWidth !== width && grid.clientWidth) {
      width = grid.clientWidth;
      layOut(arranged());
    }
  }).observe(grid);
  addEventListener("resize", later);
  grid.addEventListener("keydown", onGridKey);
  grid.addEventListener("click", onGridClick);
  document.addEventListener("keydown", onPageKey);
  grid.addEventListener("mousedown", (event) => event.shiftKey && event.preventDefault()); // selects no text
  grid.addEventListener("focusin", (event) => {
    hasFocus = true;
    const cell = event.target.closest(".card");
    if (cell) current = Number(cell.dataset.place);
  });
  grid.addEventListener("focusout", () => { hasFocus = false; });
  addEventListener("beforeprint", drawForPrint);
  addEventListener("afterprint", () => {
    byId("cut").hidden = true;
    layOut(arranged());
  });
}
