// State lives in the fragment of the address, so that a link shows what its sender saw.
const packed = await unpacked(document.getElementById("packed").textContent);
const $ = (selector, root = document) => [...root.querySelectorAll(selector)];
const controls = $("[data-filter]");
const total = document.getElementById("total");
const overview = document.querySelector(".glance"); // of few tables only
const natures = $("section.nature").map((section, place) => ({
  section,
  body: section.querySelector("tbody"),
  heads: $("thead th[data-key]", section),
  glance: overview?.querySelector(`[data-nature="${place + 1}"]`),
  rows: $("tr.weather", section).map((row) => ({ row, ...row.dataset })),
}));
const boards = $("section.board[data-threat]").map((section) => ({
  section,
  data: section.dataset.data,
  threat: section.dataset.threat,
  body: section.querySelector("tbody"),
  heads: $("thead th[data-key]", section),
  glance: overview?.querySelector(`[data-board="${section.querySelector("h2").id.slice(2)}"]`),
  note: section.querySelector("p.rest"),
  rows: $("tr.row", section).map((row) => ({ row, ...row.dataset, detail: null })),
}));
const byId = new Map();
for (const [place, board] of boards.entries()) {
  const rest = packed.rest[place];
  board.step = rest.length && board.rows.length;
  board.most = board.step || Infinity; // rows to show of those that fit
  for (const { row, ...found } of rest) board.rows.push({ ...found, html: row, row: null, detail: null }); // made if shown
  board.sorted = board.rows;
  for (const item of board.rows) byId.set(item.id, Object.assign(item, { board }));
}
const phone = matchMedia("(max-width: 44rem)"); // as in style.css
let sort = { key: "rank", down: false };

function has(list, wanted) {
  return !wanted || list.split("|").includes(wanted);
}

function parsed(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
}

function make(item) {
  item.row = parsed(item.html).querySelector("tr");
}

function lay(board) { // rows in their order, those that were made
  const parts = document.createDocumentFragment();
  for (const item of board.sorted) if (item.row) parts.append(item.row, ...(item.detail ? [item.detail] : []));
  board.body.append(parts);
}

function more(board, left) { // what does not stand there, and a button for it
  if (!board.step) return;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "rest";
  button.textContent = `Show ${Math.min(board.step, left - board.most)} more`;
  const text = `The first ${board.most} of ${left} models that fit. Search and filter above look at all of them. `;
  board.note.replaceChildren(...(left > board.most ? [text, button] : []));
}

function filter() {
  const want = Object.fromEntries(controls.map((control) => [control.dataset.filter, control.value.trim()]));
  const words = want.q.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const board of boards) {
    const here = (!want.data || board.data === want.data) && (!want.threat || board.threat === want.threat);
    let left = 0;
    let made = false;
    for (const item of board.sorted) {
      const fits = here && has(item.families, want.family) && has(item.flags, want.flag) &&
        words.every((word) => item.words.includes(word));
      left += fits;
      const shows = fits && (left <= board.most || Boolean(item.detail));
      if (shows && !item.row) {
        make(item);
        made = true;
      }
      if (item.row) item.row.hidden = !shows;
      if (item.detail) item.detail.hidden = !fits;
    }
    if (made) lay(board);
    more(board, left);
    board.section.hidden = !left;
    if (board.glance) board.glance.hidden = !left;
    shown += left;
  }
  const narrow = Boolean(words.length || want.threat || want.family || want.flag); // to models under attack
  for (const { section, glance } of natures) {
    section.hidden = narrow || Boolean(want.data && section.dataset.data !== want.data);
    if (glance) glance.hidden = section.hidden;
  }
  total.textContent = `${shown} of ${byId.size} shown`;
  document.getElementById("nothing").hidden = shown > 0 || natures.some(({ section }) => !section.hidden);
}

const names = new Intl.Collator();

function order() {
  const number = sort.key !== "name";
  const sign = sort.down ? -1 : 1;
  for (const board of [...boards, ...natures]) {
    for (const head of board.heads) {
      if (head.dataset.key === sort.key) head.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    const value = (item) => (number ? (item[sort.key] ? Number(item[sort.key]) : null) : item.name);
    board.sorted = board.rows.map((item, place) => ({ item, place, value: value(item) })).sort((a, b) => {
      if (a.value === b.value) return a.place - b.place;
      if (a.value === null || b.value === null) return a.value === null ? 1 : -1; // what is missing comes last
      return sign * (number ? a.value - b.value : names.compare(a.value, b.value));
    }).map(({ item }) => item);
    lay(board);
  }
}

function toggle(item, open = !item.detail) {
  if (open === Boolean(item.detail)) return;
  if (!item.row) {
    make(item);
    lay(item.board);
  }
  const button = item.row.querySelector(".name > button");
  item.row.classList.toggle("open", open);
  button.setAttribute("aria-expanded", String(open));
  if (open) {
    const filled = parsed(packed.opened[item.id]);
    item.detail = filled.firstElementChild;
    span(item);
    item.row.after(filled);
    button.setAttribute("aria-controls", item.detail.id);
  } else {
    item.detail.remove();
    item.detail = null;
    button.removeAttribute("aria-controls");
  }
}

function span(item) { // a hidden column must not be spanned
  const shown = [...item.row.cells].filter((cell) => !phone.matches || !cell.classList.contains("wide"));
  item.detail.firstElementChild.colSpan = shown.length;
}

function remember() {
  const state = new URLSearchParams();
  for (const control of controls) if (control.value.trim()) state.set(control.dataset.filter, control.value.trim());
  if (sort.key !== "rank" || sort.down) state.set("sort", (sort.down ? "-" : "") + sort.key);
  const open = [...byId.values()].filter((item) => item.detail).map((item) => item.id);
  if (open.length) state.set("open", open.join(","));
  history.replaceState(null, "", `#${state}`);
}

function recall() {
  const state = new URLSearchParams(location.hash.slice(1));
  for (const control of controls) {
    control.value = state.get(control.dataset.filter) ?? "";
    if (control.selectedIndex === -1) control.value = ""; // a filter of another page
  }
  const key = state.get("sort") ?? "rank";
  const wanted = { key: key.replace(/^-/, ""), down: key.startsWith("-") };
  const known = [...boards, ...natures].some((board) => board.heads.some((head) => head.dataset.key === wanted.key));
  const before = sort;
  sort = known ? wanted : { key: "rank", down: false };
  const open = (state.get("open") ?? "").split(",");
  for (const item of byId.values()) toggle(item, open.includes(item.id));
  if (sort.key !== before.key || sort.down !== before.down) order();
  filter();
}

for (const control of controls) {
  control.addEventListener("input", () => { filter(); remember(); });
}
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (link) { // the address holds the state, and no place on the page
    event.preventDefault();
    const goal = document.querySelector(link.getAttribute("href"));
    goal.focus({ preventScroll: true });
    goal.scrollIntoView();
    return;
  }
  const flag = event.target.closest("[data-flag]");
  const head = event.target.closest("thead th[data-key] button")?.parentElement;
  const row = event.target.closest("tr.row");
  if (flag) {
    const chosen = controls.find((control) => control.dataset.filter === "flag");
    chosen.value = chosen.value === flag.dataset.flag ? "" : flag.dataset.flag;
    filter();
  } else if (head) {
    const key = head.dataset.key;
    sort = { key, down: sort.key === key ? !sort.down : head.dataset.first === "down" };
    order();
    filter();
  } else if (event.target.matches("button.rest")) {
    const board = boards.find(({ section }) => section.contains(event.target));
    board.most += board.step;
    filter();
    return;
  } else if (row && !String(getSelection())) {
    toggle(byId.get(row.dataset.id));
  } else return;
  remember();
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    controls[0].focus();
  } else if (event.key === "Escape" && typing) {
    event.target.value = "";
    filter();
    remember();
  } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && event.target.closest(".name > button")) {
    const buttons = $("tr.row:not([hidden]) .name > button").filter((button) => !button.closest("section").hidden);
    const next = buttons[buttons.indexOf(event.target) + (event.key === "ArrowDown" ? 1 : -1)];
    if (next) { event.preventDefault(); next.focus(); }
  }
});
addEventListener("hashchange", recall);
phone.addEventListener("change", () => { for (const item of byId.values()) if (item.detail) span(item); });
for (const image of $("img[data-picture]")) {
  image.src = `data:image/svg+xml,${encodeURIComponent(packed.pictures[image.dataset.picture])}`;
}
recall();
document.documentElement.dataset.ready = "";
