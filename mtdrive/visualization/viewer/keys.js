// The keyboard, and the start.
const KEYS = {
  j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
  Home: () => step(-ROWS.length), End: () => step(ROWS.length),
  PageDown: () => step(10), PageUp: () => step(-10),
  ArrowLeft: () => { stop(); setTime(time - LOOK.step); }, ArrowRight: () => { stop(); setTime(time + LOOK.step); },
  " ": toggle, "/": () => $("search").focus(), x: clearFilters, "?": () => $("help").showModal(), 0: showAll,
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input[type=search], select");
  if (event.key === "Escape" && typing) event.target.blur();
  if (event.key === "Enter" && event.target.id === "search") event.target.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  if (event.key === " " && event.target.matches("button")) return;
  const action = KEYS[event.key] || (/^[1-9]$/.test(event.key) ? () => flip(Number(event.key) - 1) : null);
  if (!action || !scene) return;
  event.preventDefault();
  action();
});

$("ask").onclick = () => $("help").showModal();
new ResizeObserver(() => scene && draw()).observe($("details"));
fillFilters();
const asked = ROWS.findIndex((row) => row.name === location.hash.slice(1));
if (asked >= 0) choose(asked);
update();
