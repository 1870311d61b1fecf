// One image at a time: large, with all its labels as bars, and the keys to go on and to correct it.

const lightbox = byId("lightbox");
let shown = 0; // place in the order

function openLightbox(place) {
  showLarge(place);
  if (!lightbox.open) lightbox.showModal();
  byId("next").focus();
}

function showLarge(place) {
  shown = Math.max(0, Math.min(order.length - 1, place));
  const row = order[shown];
  showImage(row);
  byId("large-label").textContent = headline(row);
  byId("large-note").textContent = largeNote(row);
  byId("bars").replaceChildren(...bars(row));
  byId("large-unmark").hidden = !corrections.has(row);
  byId("large-new-label").value = "";
  byId("path").textContent = pathOf(row);
  const address = data.addresses[row];
  byId("original").hidden = !address;
  if (address) byId("original").href = address;
  // Not `disabled`: a button that has the focus would lose it, and the keys would reach nothing.
  byId("previous").ariaDisabled = String(shown === 0);
  byId("next").ariaDisabled = String(shown === order.length - 1);
  byId("same").replaceChildren(...identicalOnes(row));
  lightbox.setAttribute("aria-label", `Image ${shown + 1} of ${order.length}: ${described(row)}`);
}

function identicalOnes(row) {
  const others = identicalTo(row).filter((other) => other !== row);
  if (!others.length) return [];
  const paths = others.slice(0, 20).map((other) => element("li", {}, element("code", {}, pathOf(other))));
  return [element("h3", {}, `Identical to ${counted(others.length, "other image")}`), element("ul", {}, ...paths)];
}

/* The thumbnail at once, and the original in its place if the browser can show it. */
function showImage(row) {
  const image = byId("large"), text = byId("no-image"), small = thumbnailAddress(row);
  const reason = failures.get(row) ?? unseen.get(row);
  image.hidden = small === null;
  text.hidden = small !== null;
  text.textContent = reason ? `${reason.code}: ${reason.message}` : "";
  image.alt = `${headline(row)}: ${data.name[row]}`;
  image.onerror = () => {
    image.hidden = true;
    text.hidden = false;
    text.textContent = "The thumbnails of this page are not beside it.";
  };
  if (small !== null) image.src = small;
  const address = data.addresses[row];
  if (!address || /^https?:/i.test(address)) return; // this page asks no server for anything
  const original = new Image();
  original.onload = () => {
    if (order[shown] !== row) return;
    image.onerror = null;
    image.src = original.src;
    image.hidden = false;
    text.hidden = true;
  };
  original.src = address;
}

function largeNote(row) {
  const parts = [];
  if (failures.has(row)) parts.push(failures.get(row).message);
  if (isCorrect(row)) parts.push("correct");
  if (isWrong(row)) parts.push(`wrong: the true label is ${trueLabelOf(row)}`);
  if (isConfirmed(row)) parts.push("confirmed by you");
  if (isCorrected(row)) parts.push(`corrected by you to ${corrections.get(row)}`);
  return parts.join("; ");
}

/* A button that is a bar: a name, its value, and how long the bar is, from 0 to 1. */
function barButton(name, value, share, title) {
  const bar = element("span", { className: "bar" });
  bar.style.setProperty("--share", share);
  return element("button", { type: "button", className: "as-label", title },
    element("span", { className: "of" }, name), element("span", { className: "value" }, value), bar);
}

function bars(row) {
  const scores = data.predictions[row], made = [];
  for (let at = 0; at < scores.length; at += 2) {
    const label = data.labels[scores[at]], value = scores[at + 1], rank = at / 2 + 1;
    const share = (value - lowestScore) / (highestScore - lowestScore || 1);
    const mark = barButton(label, scoreText(value), share, `Mark as ${label}`);
    if (rank <= 9) mark.append(element("kbd", {}, String(rank)));
    mark.classList.toggle("true", trueLabelOf(row) === label);
    mark.classList.toggle("chosen", corrections.get(row) === label);
    mark.addEventListener("click", () => markShown(label));
    made.push(element("li", {}, mark));
  }
  return made;
}

/* Mark the image that is shown; with null its correction is taken back. */
function markShown(label) {
  const row = order[shown];
  correct([row], label);
  showLarge(shown);
}

async function copyPath() {
  const button = byId("copy");
  try {
    await navigator.clipboard.writeText(byId("path").textContent);
  } catch {
    getSelection().selectAllChildren(byId("path")); // ready for Ctrl+C
    document.execCommand("copy");
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy path"; }, 1500);
}

function onLightboxKey(event) {
  if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey) return;
  const scores = data.predictions[order[shown]], ranked = 2 * (Number(event.key) - 1);
  if (event.key === "ArrowLeft") showLarge(shown - 1);
  else if (event.key === "ArrowRight") showLarge(shown + 1);
  else if (event.key === "Home") showLarge(0);
  else if (event.key === "End") showLarge(order.length - 1);
  else if (event.key === "c") byId("large-new-label").focus();
  else if (/^[1-9]$/.test(event.key) && ranked < scores.length) markShown(data.labels[scores[ranked]]);
  else return;
  event.preventDefault();
}

function startLightbox() {
  labelField(byId("large-new-label"), byId("large-mark"), (label) => {
    markShown(label);
    byId("next").focus();
  }, () => [order[shown]]);
  byId("large-unmark").addEventListener("click", () => markShown(null));
  byId("previous").addEventListener("click", () => showLarge(shown - 1));
  byId("next").addEventListener("click", () => showLarge(shown + 1));
  byId("close").addEventListener("click", () => lightbox.close());
  byId("copy").addEventListener("click", copyPath);
  lightbox.addEventListener("keydown", onLightboxKey);
  lightbox.addEventListener("click", (event) => event.target === lightbox && lightbox.close());
  lightbox.addEventListener("close", () => {
    const row = order[shown];
    showCorrections();
    goTo(Math.max(0, order.indexOf(row)));
  });
}
