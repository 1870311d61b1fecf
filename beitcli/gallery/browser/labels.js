// A field for a label: what is typed is completed from the labels of the model and those given before.

const MOST_COMPLETIONS = 8;

const givenLabels = new Set(); // new ones, typed on this page

function allLabels() {
  return [...givenLabels, ...data.labels];
}

/* How well a label fits a text in small letters: 0 for one of its names, 1 for its beginning, 2 for a part, 3 for none. */
function fit(label, wanted) {
  const lower = label.toLowerCase(), at = lower.indexOf(wanted);
  if (at < 0) return 3;
  if (lower === wanted || lower.split(",").some((name) => name.trim() === wanted)) return 0;
  return at === 0 ? 1 : 2;
}

/* The labels that fit a text best, and whether the first of them is what is meant, unless the user says otherwise. */
function completions(text) {
  const wanted = text.trim().toLowerCase(), byFit = [[], [], [], []];
  for (const label of allLabels()) byFit[fit(label, wanted)].push(label);
  const labels = byFit.slice(0, 3).flat().slice(0, MOST_COMPLETIONS);
  return { labels, isMeant: wanted !== "" && byFit[0].length + byFit[1].length > 0, isLabel: byFit[0].length > 0 };
}

/* Make an input a field with completion (ARIA: combobox with a list). `onEnter` gets the label that is entered by Enter,
   by the button or by a click: the one that is highlighted. */
function labelField(input, button, onEnter) {
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
    const text = input.value.trim(), { labels, isMeant, isLabel } = completions(text);
    list.replaceChildren(...labels.map((label, place) => option(label, place, label)));
    if (text && !isLabel) list.append(option(text, labels.length, `new label: ${text}`));
    list.hidden = !list.children.length;
    input.ariaExpanded = String(!list.hidden);
    highlight(text ? (isMeant ? 0 : labels.length) : -1);
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
