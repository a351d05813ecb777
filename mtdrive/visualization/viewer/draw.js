// Painting: the bird's-eye view and the camera view of one scene at one time. Places are in metres in the ego frame
// (x ahead, y left) or in pixels of the embedded image; see scenes.py.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const LOOK = read("look");
const SECONDS = (LOOK.steps - 1) * LOOK.step;

/** Give a canvas the pixels that it covers on the screen; its context then draws in CSS pixels. */
function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1, { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.lineJoin = "round";
  return { context, width, height };
}

/** Where a way [[x, y, heading], ...] at equal steps over the 4 s is at a time; null where it is absent. */
function poseAt(way, time) {
  const at = Math.min(Math.max(time / SECONDS, 0), 1) * (way.length - 1), before = Math.floor(at), part = at - before;
  const a = way[before], b = way[Math.min(before + 1, way.length - 1)];
  if (part < 1e-9 || !a) return a;
  if (!b) return null;
  const turned = Math.atan2(Math.sin(b[2] - a[2]), Math.cos(b[2] - a[2]));
  return [a[0] + part * (b[0] - a[0]), a[1] + part * (b[1] - a[1]), a[2] + part * turned];
}

/** Corners of a box about a pose, front left first, counter-clockwise. */
function corners([x, y, heading], length, width, ahead = 0) {
  const c = Math.cos(heading), s = Math.sin(heading);
  return [[1, 1], [-1, 1], [-1, -1], [1, -1]].map(([i, j]) => {
    const u = ahead + (i * length) / 2, v = (j * width) / 2;
    return [x + c * u - s * v, y + s * u + c * v];
  });
}
const carAt = (pose) => corners(pose, LOOK.car.length, LOOK.car.width, LOOK.car.axleToCentre);

function trace(context, points, closed = false) {
  points.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
  if (closed) context.closePath();
}

/** Stroke points with a light rim, which keeps dark colours visible. */
function rimmed(context, points, colour, width) {
  for (const [style, extra] of [["white", 1.6], [colour, 0]]) {
    context.strokeStyle = style;
    context.lineWidth = width + extra;
    context.beginPath();
    trace(context, points);
    context.stroke();
  }
}

function cross(context, [x, y], size) {
  for (const [colour, width] of [["white", 4.5], [LOOK.violation, 2.4]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    context.moveTo(x - size, y - size);
    context.lineTo(x + size, y + size);
    context.moveTo(x - size, y + size);
    context.lineTo(x + size, y - size);
    context.stroke();
  }
}

/** The turns whose plans are drawn, with their numbers. */
const visible = (scene, hidden) =>
  scene.turns.map((turn, index) => [turn, index]).filter(([turn, index]) => turn.path && !hidden.has(index));
const happened = (turn, time) => turn.violation && (time === 0 || turn.violation.time <= time + 1e-9);

function drawBird(canvas, scene, hidden, time) {
  const { context, width, height } = prepare(canvas);
  const view = frame(scene, width, height);
  const at = ([x, y]) => [width / 2 - view.scale * y, height - view.scale * (x - view.bottom)];
  const fill = (rings, colour) => {
    context.fillStyle = colour;
    context.beginPath();
    for (const ring of rings) trace(context, ring.map(at), true);
    context.fill("evenodd");
  };
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  for (const layer of scene.map) {
    for (const rings of layer.rings) {
      fill(rings, layer.fill);
      if (!layer.edge) continue;
      context.strokeStyle = LOOK.laneEdge;
      context.lineWidth = 0.7;
      context.stroke();
    }
  }
  drawLights(context, scene, time, at);
  line(context, scene.centerline.map(at), LOOK.centerline, 1, [6, 4]);
  line(context, scene.history.map(at), LOOK.ego, 1.2, [1.5, 2.5]);
  for (const agent of scene.agents) drawTrace(context, agent, at);
  for (const agent of scene.agents) drawAgent(context, agent, time, at);
  drawEgo(context, at);
  const turns = visible(scene, hidden);
  for (const [turn] of turns) rimmed(context, turn.path.map(at), turn.colour, 2.8);
  for (const plan of scene.beside) line(context, plan.path.map(at), plan.colour, 1.7, dashes(plan.label));
  for (const [turn] of turns) for (const place of turn.planned) disc(context, at(place), 2.6, turn.colour);
  for (const [turn, index] of turns) drawCar(context, turn, index, time, at);
  for (const [turn] of turns) {
    if (!happened(turn, time)) continue;
    for (const box of turn.violation.boxes) line(context, [...box, box[0]].map(at), LOOK.violation, 1.5, [4, 3]);
    cross(context, at(turn.violation.place), 5);
  }
  drawScale(context, view, height);
}

/** Limits that hold all plans, as in the still pictures: scale [px/m] and the lowest x [m]. */
function frame(scene, width, height) {
  const places = [[0, 0], ...[...scene.turns, ...scene.beside].flatMap((plan) => plan.path || [])];
  const ahead = places.map(([x]) => x), aside = places.map(([, y]) => Math.abs(y));
  const bottom = Math.min(...ahead, 0) - LOOK.view.behind;
  const top = Math.max(Math.max(...ahead) + LOOK.view.margin, LOOK.view.leastAhead);
  return { bottom, scale: Math.min(height / (top - bottom), width / 2 / (Math.max(...aside) + LOOK.view.margin)) };
}

const dashes = (label) => (label === "human" ? [1.8, 2.2] : [7, 4]);

function line(context, points, colour, width, dash = []) {
  context.setLineDash(dash);
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.beginPath();
  trace(context, points);
  context.stroke();
  context.setLineDash([]);
}

function disc(context, [x, y], radius, colour) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = colour;
  context.fill();
  context.strokeStyle = "white";
  context.lineWidth = 0.8;
  context.stroke();
}

function drawLights(context, scene, time, at) {
  for (const light of scene.lights) {
    const sighting = Math.floor((time / SECONDS) * (light.red.length - 1) + 1e-9);
    if (!light.red[sighting]) continue;
    context.save();
    context.beginPath();
    for (const rings of light.rings) for (const ring of rings) trace(context, ring.map(at), true);
    context.strokeStyle = LOOK.violation;
    context.lineWidth = 1.2;
    context.stroke();
    context.clip("evenodd");
    const { width, height } = context.canvas;
    context.beginPath();
    for (let x = -height; x < width; x += 7) trace(context, [[x, height], [x + height, 0]]);
    context.stroke();
    context.restore();
  }
}

function drawTrace(context, agent, at) {
  const way = agent.poses.filter(Boolean);
  const [first, last] = [way[0], way[way.length - 1]];
  const moved = Math.hypot(last[0] - first[0], last[1] - first[1]) > 0.5;
  if (!LOOK.agent[agent.kind] || !moved) return;
  line(context, way.map(at), LOOK.objects[agent.kind], 1.6);
  disc(context, at(last), 2, LOOK.objects[agent.kind]);
}

function drawAgent(context, agent, time, at) {
  const pose = poseAt(agent.poses, time);
  if (!pose) return;
  const box = corners(pose, ...agent.size).map(at), colour = LOOK.objects[agent.kind];
  context.beginPath();
  trace(context, box, true);
  context.fillStyle = colour;
  context.fill();
  context.strokeStyle = LOOK.ego;
  context.lineWidth = 0.8;
  context.stroke();
  const nose = [(box[0][0] + box[3][0]) / 2, (box[0][1] + box[3][1]) / 2];
  line(context, [nose, at(pose)], LOOK.ego, 0.8);
  if (LOOK.small[agent.kind]) {
    disc(context, at(pose), 3, colour);
    context.strokeStyle = LOOK.ego;
    context.stroke();
  }
}

function drawEgo(context, at) {
  context.beginPath();
  trace(context, carAt([0, 0, 0]).map(at), true);
  context.fillStyle = LOOK.ego;
  context.fill();
  context.beginPath();
  trace(context, [[3.4, 0], [1.9, 0.75], [1.9, -0.75]].map(at), true);
  context.fillStyle = "white";
  context.fill();
}

/** The ego on a turn's plan: at t0 its box at the end with the turn's number, later the box as it is then. */
function drawCar(context, turn, index, time, at) {
  const pose = poseAt(turn.path, time || SECONDS);
  context.beginPath();
  trace(context, carAt(pose).map(at), true);
  if (time) {
    context.globalAlpha = 0.85;
    context.fillStyle = turn.colour;
    context.fill();
    context.globalAlpha = 1;
  }
  context.strokeStyle = time ? "white" : turn.colour;
  context.lineWidth = 1.3;
  context.stroke();
  if (Math.hypot(pose[0], pose[1]) < 3) return;
  const reach = LOOK.car.axleToCentre + (time ? 0 : LOOK.car.length / 2 + 1.4);
  const [x, y] = at([pose[0] + reach * Math.cos(pose[2]), pose[1] + reach * Math.sin(pose[2])]);
  context.beginPath();
  context.arc(x, y, 7.5, 0, 2 * Math.PI);
  context.fillStyle = "white";
  context.fill();
  context.strokeStyle = turn.colour;
  context.lineWidth = 1.4;
  context.stroke();
  text(context, String(index + 1), x, y + 0.5, "center");
}

function drawScale(context, view, height) {
  const metres = (height / view.scale) < 90 ? 10 : 20, length = metres * view.scale;
  line(context, [[14, height - 14], [14 + length, height - 14]], LOOK.ego, 2);
  text(context, `${metres} m`, 14 + length / 2, height - 24, "center");
}

function text(context, words, x, y, align) {
  context.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  context.fillStyle = LOOK.ego;
  context.textAlign = align;
  context.textBaseline = "middle";
  context.fillText(words, x, y);
}

function drawCamera(canvas, image, scene, hidden, time) {
  const { context, width } = prepare(canvas);
  const scale = width / scene.size[0];
  context.drawImage(image, 0, 0, width, scale * scene.size[1]);
  context.scale(scale, scale);
  for (const plan of scene.beside) for (const edge of plan.edges) rimmed(context, edge, plan.colour, 1.3);
  for (const [turn] of visible(scene, hidden)) {
    context.globalAlpha = 0.3;
    context.fillStyle = turn.colour;
    context.beginPath();
    for (const quad of turn.ribbon.quads) trace(context, quad, true);
    context.fill("nonzero");
    context.globalAlpha = 1;
    for (const piece of [...turn.ribbon.bars, ...turn.ribbon.edges]) rimmed(context, piece, turn.colour, 1.5);
  }
  for (const [turn] of visible(scene, hidden)) {
    if (time) drawFootprint(context, turn, time);
    if (happened(turn, time) && turn.violation.pixel) {
      context.beginPath();
      context.arc(...turn.violation.pixel, 8, 0, 2 * Math.PI);
      context.lineWidth = 4;
      context.strokeStyle = "white";
      context.stroke();
      context.lineWidth = 2;
      context.strokeStyle = LOOK.violation;
      context.stroke();
      cross(context, turn.violation.pixel, 4);
    }
  }
}

/** The ground under the ego at a time, as it shows in the image. */
function drawFootprint(context, turn, time) {
  const step = Math.round((time / SECONDS) * (turn.footprints.length - 1)), outline = turn.footprints[step];
  if (!outline.length) return;
  context.beginPath();
  trace(context, outline, true);
  context.fillStyle = turn.colour;
  context.fill();
  context.strokeStyle = "white";
  context.lineWidth = 1.5;
  context.stroke();
}
