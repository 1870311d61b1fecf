// The bar at the bottom: a label for the selected images, and the corrections so far.

function drawActions() {
  const chosen = selection.size, marked = corrections.size;
  byId("actions").hidden = !chosen && !marked;
  byId("actions").classList.toggle("selecting", chosen > 0);
  byId("selected").textContent = chosen ? `${number(chosen)} selected` : "";
  byId("unmark").hidden = ![...selection].some((row) => corrections.has(row));
  const warning = keepsCorrections ? "" : ", not kept by this browser: save them";
  const differing = [...corrections.keys()].filter(isCorrected).length;
  const words = `${number(marked)} marked, ${number(differing)} corrected${areSaved ? ", saved as a download" : warning}`;
  byId("corrected").textContent = marked ? words : "";
  byId("save").hidden = byId("discard").hidden = !marked;
}

function markSelected(label) {
  correct([...selection], label);
  select([...selection], false);
  goTo(current);
}

function startActions() {
  labelField(byId("new-label"), byId("mark"), markSelected, () => [...selection]);
  byId("unmark").addEventListener("click", () => markSelected(null));
  byId("deselect").addEventListener("click", () => { select([...selection], false); goTo(current); });
  byId("save").addEventListener("click", saveCorrections);
  byId("discard").addEventListener("click", () => {
    if (confirm(`Discard the labels of ${counted(corrections.size, "image")}?`)) discardCorrections();
  });
  selectionListeners.push(drawActions);
  correctionListeners.push(fillKinds, showCorrections, drawActions);
}
