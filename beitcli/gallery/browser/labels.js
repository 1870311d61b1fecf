// A field for a label: what is typed is completed from the labels of the model and those given before.

const MOST_COMPLETIONS = 8;

const givenLabels = new Set(); // new ones, typed on this page

function allLabels() {
  return [...givenLabels, ...data.labels];
}

/* Labels that contain the text: those that begin with it first. */
function completions(text) {
  const wanted = text.trim().toLowerCase();
  const beginning = [], inside = [];
  for (const label of allLabels()) {
    const at = label.toLowerCase().indexOf(wanted);
    if (at === 0) beginning.push(label);
    else if (at > 0) inside.push(label);
    if (beginning.length >= MOST_COMPLETIONS) break;
  }
  return [...beginning, ...inside].slice(0, MOST_COMPLETIONS);
}

/* Make an input a field with completion (ARIA: combobox with a list); `onEnter` gets the label that is entered. */
function labelField(input, onEnter) {
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
    const labels = completions(input.value), text = input.value.trim();
    active = -1;
    list.replaceChildren(...labels.map((label, place) => option(label, place, label)));
    if (text && !labels.includes(text)) list.append(option(text, labels.length, `new label: ${text}`));
    list.hidden = !list.children.length;
    input.ariaExpanded = String(!list.hidden);
    input.removeAttribute("aria-activedescendant");
  }

  function option(label, place, shown) {
    const made = element("li", { id: `${list.id}-${place}`, role: "option", textContent: shown });
    made.dataset.label = label;
    made.addEventListener("mousedown", (event) => {
      event.preventDefault(); // the field keeps the focus
      input.value = label;
      enter();
    });
    return made;
  }

  function move(step) {
    if (list.hidden) open();
    const options = list.children;
    if (!options.length) return;
    active = (active + step + options.length + (active < 0 && step < 0 ? 1 : 0)) % options.length;
    for (const [place, each] of [...options].entries()) each.ariaSelected = String(place === active);
    input.setAttribute("aria-activedescendant", options[active].id);
    options[active].scrollIntoView({ block: "nearest" });
  }

  function enter() {
    const label = (active >= 0 ? list.children[active].dataset.label : input.value).trim();
    close();
    if (!label) return;
    if (!data.labels.includes(label)) givenLabels.add(label);
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
  return enter;
}
