// The pane of the chosen scene: views, time, and the conversation turn by turn.
let scene = null;
let picture = null;
let hidden = new Set(); // turns whose plans are not drawn
let time = 0;
let playing = 0; // of the animation frame, 0 while it stands
let views = {};

function open(index) {
  stop();
  const row = ROWS[index];
  scene = read(`scene-${index}`);
  hidden = new Set();
  time = 0;
  const camera = element("canvas"), bird = element("canvas");
  const [width, height] = scene.size;
  camera.style.aspectRatio = `${width} / ${height}`;
  camera.setAttribute("role", "img");
  camera.setAttribute("aria-label", `Front camera of scene ${row.token} with the plans`);
  bird.setAttribute("role", "img");
  bird.setAttribute("aria-label", `Bird's-eye view of scene ${row.token} with the plans`);
  const both = element("div.views", camera, bird);
  both.style.gridTemplateColumns = `${width / height}fr 0.75fr`;
  views = { camera, bird, ...timeBar() };
  $("details").replaceChildren(title(row), both, views.bar, element("div.turns", ...scene.turns.map(card)));
  $("details").scrollTop = 0;
  picture = new Image();
  picture.onload = () => draw();
  picture.src = `data:image/jpeg;base64,${scene.image}`;
}

function title(row) {
  const parts = [element("h2", words(row.family || row.place)), element("span.token", row.name)];
  parts.push(...row.statuses.map((status) => element("span.tag", words(status))));
  if (row.family) parts.push(element("span.token", row.place));
  const change = row.scores.length > 1 ? element(`span.${row.change}`, `  ${MARKS[row.change]} ${row.change}`) : "";
  parts.push(element("span.path.num", row.scores.length ? `score ${path(row)}` : "", change));
  return element("div.title", ...parts);
}

function timeBar() {
  const play = element("button", "Play"), slider = element("input"), clock = element("output.num", "0.0 s");
  play.type = "button";
  play.onclick = toggle;
  Object.assign(slider, { type: "range", min: 0, max: SECONDS, step: LOOK.step, value: 0 });
  slider.setAttribute("aria-label", "Time");
  slider.oninput = () => { stop(); setTime(Number(slider.value)); };
  const kinds = [...new Set(scene.agents.map((agent) => LOOK.names[agent.kind]))].filter(Boolean);
  const keys = kinds.map((name) => {
    const patch = element("i");
    patch.style.background = LOOK.objects[LOOK.names.indexOf(name)];
    return element("span.key", patch, name);
  });
  for (const plan of scene.beside) keys.push(element("span.key", sample(plan), plan.summary));
  return { bar: element("div.time", play, slider, clock, ...keys), play, slider, clock };
}

function sample(plan) {
  const canvas = element("canvas");
  Object.assign(canvas, { width: 52, height: 12 });
  Object.assign(canvas.style, { width: "26px", height: "6px" });
  const context = canvas.getContext("2d");
  context.scale(2, 2);
  line(context, [[0, 3], [26, 3]], plan.colour, 2, dashes(plan.label));
  return canvas;
}

function card(turn, index) {
  const button = element("button", element("span.dot", String(index + 1)), turn.name || `Turn ${index + 1}`);
  button.type = "button";
  button.title = "Show or hide its plan";
  button.onclick = () => flip(index);
  const value = turn.score === null ? words(turn.status) : turn.score.toFixed(2);
  const made = element("article.turn", element("h3", button, element("span.value.num", value)));
  if (turn.colour) made.style.setProperty("--colour", turn.colour);
  if (turn.parts.length) made.append(bars(turn.parts));
  if (turn.violation) {
    made.append(element("p.said", element("b", `${turn.violation.name} at ${turn.violation.time.toFixed(1)} s`)));
  }
  if (turn.feedback) made.append(element("p.said", element("span.label", "Told"), element("br"), turn.feedback));
  if (turn.answer) made.append(element("p.answer", turn.answer));
  return made;
}

/** Sub-scores as bars; what is to be improved has its value in bold. */
function bars(parts) {
  const made = element("div.bars");
  for (const [short, name, value] of parts) {
    const label = element("span", short), full = element("i");
    label.title = words(name);
    full.style.width = `${100 * value}%`;
    made.append(label, element("div", full), element(value < LOOK.fault ? "b" : "span", value.toFixed(2)));
  }
  return made;
}

function draw() {
  if (!picture.complete) return;
  drawCamera(views.camera, picture, scene, hidden, time);
  drawBird(views.bird, scene, hidden, time);
}

function flip(index) {
  if (!scene.turns[index]?.path) return;
  if (!hidden.delete(index)) hidden.add(index);
  mark();
}

function showAll() {
  hidden.clear();
  mark();
}

function mark() {
  document.querySelectorAll(".turn").forEach((turn, index) => turn.classList.toggle("off", hidden.has(index)));
  draw();
}

function setTime(value) {
  time = Math.round(Math.min(Math.max(value, 0), SECONDS) / LOOK.step) * LOOK.step;
  views.slider.value = time;
  views.clock.textContent = `${time.toFixed(1)} s`;
  draw();
}

function toggle() {
  if (playing) return stop();
  let before = null, at = time >= SECONDS - 1e-6 ? 0 : time;
  const tick = (now) => {
    at += before === null ? 0 : (now - before) / 1000;
    before = now;
    setTime(at);
    playing = at < SECONDS ? requestAnimationFrame(tick) : 0;
    if (!playing) views.play.textContent = "Play";
  };
  views.play.textContent = "Stop";
  playing = requestAnimationFrame(tick);
}

function stop() {
  cancelAnimationFrame(playing);
  playing = 0;
  if (views.play) views.play.textContent = "Play";
}
