// The list of scenes: search, filters, order, and which scene is chosen.
const ROWS = read("rows");
const $ = (id) => document.getElementById(id);
const MARKS = { gained: "▲", lost: "▼", same: "=" };
const words = (name) => name.replaceAll("_", " ");
const number = (value) => (value === null ? "–" : value.toFixed(2));
const path = (row) => row.scores.map(number).join(" → ");
const gain = (row) => (row.scores.length ? row.scores.at(-1) - row.scores[0] : 0);

const FILTERS = {
  family: { any: "all families", of: (row) => [row.family].filter(Boolean) },
  faults: { any: "any or none", of: (row) => (row.faults.length ? row.faults : row.scores.length ? ["none"] : []) },
  change: { any: "all", of: (row) => (row.scores.length ? [row.change] : []) },
  statuses: { any: "all", of: (row) => row.statuses },
};
const ORDERS = {
  file: () => 0,
  low: (a, b) => (a.scores.at(-1) ?? 2) - (b.scores.at(-1) ?? 2),
  gain: (a, b) => gain(b) - gain(a),
  loss: (a, b) => gain(a) - gain(b),
};

/** Make an element: element("b.strong", "text"), or with children. */
function element(kind, ...children) {
  const [tag, ...classes] = kind.split(".");
  const made = document.createElement(tag);
  if (classes.length) made.className = classes.join(" ");
  made.append(...children);
  return made;
}

const items = ROWS.map((row, index) => {
  const mark = element(`span.${row.change}`, row.scores.length > 1 ? ` ${MARKS[row.change]}` : "");
  const item = element("li",
    element("span.family", words(row.family || row.place)), element("span.path.num", path(row), mark),
    element("span.token", row.name), element("span.fault", row.faults.join(" ")));
  item.setAttribute("role", "option");
  item.id = `item-${index}`;
  item.onclick = () => choose(index);
  return item;
});
const texts = ROWS.map((row) =>
  [row.name, words(row.family), row.family, row.place, row.words].join(" ").toLowerCase());

let shown = ROWS.map((_, index) => index); // of the list, in its order
let chosen = -1;

function fillFilters() {
  for (const [name, filter] of Object.entries(FILTERS)) {
    const counts = new Map();
    for (const row of ROWS) for (const value of filter.of(row)) counts.set(value, (counts.get(value) || 0) + 1);
    const options = [...counts].sort(([a], [b]) => a.localeCompare(b));
    $(name).replaceChildren(new Option(filter.any, ""), ...options.map(([value, count]) =>
      new Option(`${words(value)} (${count})`, value)));
    $(name).disabled = !options.length;
    $(name).onchange = update;
  }
  $("order").onchange = update;
  $("search").oninput = update;
  $("clear").onclick = clearFilters;
}

function clearFilters() {
  for (const name of [...Object.keys(FILTERS), "search"]) $(name).value = "";
  update();
}

/** Show the rows that pass search and filters, in the chosen order. */
function update() {
  const sought = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const passes = (row, index) =>
    sought.every((word) => texts[index].includes(word)) &&
    Object.entries(FILTERS).every(([name, filter]) => !$(name).value || filter.of(row).includes($(name).value));
  const order = ORDERS[$("order").value];
  shown = ROWS.map((_, index) => index).filter((index) => passes(ROWS[index], index));
  shown.sort((a, b) => order(ROWS[a], ROWS[b]) || a - b);
  $("list").replaceChildren(...(shown.length ? shown.map((index) => items[index]) : [element("li.empty", "No such scene.")]));
  $("count").textContent = shown.length === ROWS.length ? `${ROWS.length} scenes` : `${shown.length} of ${ROWS.length}`;
  if (shown.length && !shown.includes(chosen)) choose(shown[0]);
  else if (chosen >= 0) items[chosen].scrollIntoView({ block: "nearest" });
}

function choose(index) {
  if (chosen >= 0) items[chosen].removeAttribute("aria-selected");
  chosen = index;
  items[index].setAttribute("aria-selected", "true");
  items[index].scrollIntoView({ block: "nearest" });
  $("list").setAttribute("aria-activedescendant", items[index].id);
  history.replaceState(null, "", `#${ROWS[index].name}`);
  open(index);
}

/** Go some rows down (or up) the list. */
function step(count) {
  if (!shown.length) return;
  const place = Math.min(Math.max(shown.indexOf(chosen) + count, 0), shown.length - 1);
  if (shown[place] !== chosen) choose(shown[place]);
}
