// A field for a label: what is typed is completed from the labels of the model and those given before.

const MOST_COMPLETIONS = 8;

const givenLabels = new Set(); // new ones, typed on this page

function allLabels() {
  return [...new Set([...givenLabels, ...corrections.values(), ...data.labels])];
}

/* How well a label fits a text in small letters: 0 for itself, 1 for one of its names, 2 for its beginning, 3 for a part,
   4 for none. */
function fit(label, wanted) {
  const lower = label.toLowerCase(), at = lower.indexOf(wanted);
  if (at < 0) return 4;
  if (lower === wanted) return 0;
  if (lower.split(",").some((name) => name.trim() === wanted)) return 1;
  return at === 0 ? 2 : 3;
}

/* The labels that fit a text best, and whether the text is the first of them. */
function completions(text) {
  const wanted = text.toLowerCase(), byFit = [[], [], [], [], []];
  for (const label of allLabels()) byFit[fit(label, wanted)].push(label);
  return { labels: byFit.slice(0, 4).flat().slice(0, MOST_COMPLETIONS), isLabel: byFit[0].length + byFit[1].length > 0 };
}

/* Labels for images without a text: theirs first, then those given before, then the most frequent. */
function likelyLabels(images) {
  const count = new Map();
  for (const row of images) if (best[row] >= 0) count.set(data.labels[best[row]], (count.get(data.labels[best[row]]) ?? 0) + 1);
  const theirs = [...count].sort(([, one], [, other]) => other - one).map(([label]) => label);
  const frequent = labelsByCount.map(([label]) => data.labels[label]);
  const given = new Set([...givenLabels, ...corrections.values()]);
  return [...new Set([...theirs, ...given, ...frequent])].slice(0, MOST_COMPLETIONS);
}

/* Make an input a field with completion (ARIA: combobox with a list). `onEnter` gets the label that is entered by Enter,
   by the button or by a click: the one that is highlighted, at first what was typed. `images` gives what is labelled. */
function labelField(input, button, onEnter, images) {
  const list = element("ul", { id: `${input.id}-list`, role: "listbox", hidden: true, className: "completions" });
  input.after(list);
  Object.assign(input, { role: "combobox", ariaExpanded: "false", ariaAutoComplete: "list" });
  input.setAttribute("aria-controls", list.id);
  let active = -1;

  function close() {
    list.hidden = true;
    active = -1;
    input.ariaExpanded = "false";
    input.removeAttribute("aria-activedescendant");
  }

  function open() {
    const text = input.value.trim();
    const { labels, isLabel } = text ? completions(text) : { labels: likelyLabels(images()), isLabel: true };
    const options = isLabel ? [] : [[text, `new label: ${text}`]];
    options.push(...labels.map((label) => [label, label]));
    list.replaceChildren(...options.map(([label, words], place) => option(label, place, words)));
    list.hidden = !list.children.length;
    input.ariaExpanded = String(!list.hidden);
    highlight(text ? 0 : -1);
  }

  function highlight(place) {
    active = place;
    for (const [number, each] of [...list.children].entries()) each.ariaSelected = String(number === active);
    if (active < 0) input.removeAttribute("aria-activedescendant");
    else input.setAttribute("aria-activedescendant", list.children[active].id);
  }

  function option(label, place, shown) {
    const made = element("li", { id: `${list.id}-${place}`, role: "option", textContent: shown });
    made.dataset.label = label;
    made.addEventListener("mousedown", (event) => {
      event.preventDefault(); // the field keeps the focus
      enter(label);
    });
    return made;
  }

  function move(step) {
    if (list.hidden) open();
    const count = list.children.length;
    if (count) highlight(active < 0 && step < 0 ? count - 1 : (active + step + count) % count);
  }

  function enter(chosen) {
    if (list.hidden) open();
    const label = chosen ?? list.children[active]?.dataset.label;
    close();
    if (!label) return;
    if (!allLabels().includes(label)) givenLabels.add(label);
    input.value = "";
    onEnter(label);
  }

  input.addEventListener("input", open);
  input.addEventListener("focus", open);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") move(event.key === "ArrowDown" ? 1 : -1);
    else if (event.key === "Enter") enter();
    else if (event.key === "Escape" && !list.hidden) close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  button.addEventListener("mousedown", (event) => event.preventDefault()); // the list stays, and what is highlighted
  button.addEventListener("click", () => enter());
}
