// Ticked models beside each other. What is ticked lives in the fragment of the address.
const { conditions, models } = JSON.parse(document.getElementById("figures").textContent);
const boxes = [...document.querySelectorAll(".choice input")];
const find = document.getElementById("find");
const beside = document.getElementById("beside");

function element(name, text = "", attributes = {}) { // text is text: names are of strangers
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

const percent = (share) => (100 * share).toFixed(1);

function cell(figure) {
  const made = element("td");
  if (!figure) return element("td", "–");
  const { value, clean, about } = figure;
  made.append(element("b", value ? percent(value[0]) : "–"));
  if (value) {
    const bar = element("span", "", { class: "bar" });
    const shares = { r: value[0], lo: value[1], hi: value[2], ...(clean === null ? {} : { c: clean }) };
    for (const [key, share] of Object.entries(shares)) bar.style.setProperty(`--${key}`, percent(share));
    made.append(bar, element("small", `${percent(value[1])}–${percent(value[2])}`));
  }
  made.append(element("small", clean === null ? about : `${about}; clean ${percent(clean)}`));
  return made;
}

function show() {
  const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
  beside.replaceChildren();
  if (!chosen.length) return;
  const table = element("table", "", { class: "beside" });
  table.append(element("caption", "Robust accuracy, at most, in % with its 95 % interval"));
  const head = element("tr");
  head.append(element("th", "Images and threat model", { scope: "col" }));
  for (const id of chosen) {
    const named = element("th", models[id].name, { scope: "col" });
    named.append(element("small", models[id].grid));
    head.append(named);
  }
  table.createTHead().append(head);
  const body = table.createTBody();
  for (const [key, name] of Object.entries(conditions)) {
    if (!chosen.some((id) => models[id].figures[key])) continue;
    const row = body.insertRow();
    row.append(element("th", name, { scope: "row" }), ...chosen.map((id) => cell(models[id].figures[key])));
  }
  beside.append(table);
}

function narrow() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const box of boxes) {
    const label = box.closest("label");
    label.hidden = !box.checked && !words.every((word) => label.textContent.toLowerCase().includes(word));
  }
}

function recall() {
  const ticked = (new URLSearchParams(location.hash.slice(1)).get("models") ?? "").split(",");
  for (const box of boxes) box.checked = ticked.includes(box.value);
  show();
}

for (const box of boxes) {
  box.addEventListener("change", () => {
    const chosen = boxes.filter((each) => each.checked).map((each) => each.value);
    history.replaceState(null, "", chosen.length ? `#models=${chosen.join(",")}` : "#");
    show();
  });
}
find.addEventListener("input", narrow);
addEventListener("hashchange", recall);
recall();
document.documentElement.dataset.ready = "";
