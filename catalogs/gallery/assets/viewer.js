/* The splats of one world: first a small file, then the whole one; the camera starts where the photograph was taken. */
import * as THREE from "./three.module.js";
import { SparkRenderer, SplatMesh } from "./spark.module.min.js";

const world = JSON.parse(document.getElementById("world").textContent);
const stage = document.getElementById("stage");
const canvas = document.getElementById("canvas");
const poster = document.getElementById("poster");
const note = document.getElementById("note");
const $ = (id) => document.getElementById(id);

/* Files are in the axes of the video's first camera (x right, y down, z forward); three.js has y up and looks along -z.
   `turned` says whether the file itself was turned already (SPZ is written so). This is the one place that turns. */
const TURN = new THREE.Quaternion(1, 0, 0, 0);
const placed = (object, turned) => { if (!turned) object.quaternion.copy(TURN); return object; };

function say(text) { note.textContent = text; note.classList.toggle("gone", !text); }

const renderer = new THREE.WebGLRenderer({ canvas, antialias: false, powerPreference: "high-performance" });
renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
const scene = new THREE.Scene();
scene.background = new THREE.Color(0x0b0c0d);
const spark = new SparkRenderer({ renderer });
scene.add(spark);
const camera = new THREE.PerspectiveCamera(50, 1, 0.01, 5000);

/* The video's field of view, and never more of either side: beyond it there is only what was made up. */
function fit() {
  const width = stage.clientWidth, height = stage.clientHeight;
  if (!width || !height) return;
  renderer.setSize(width, height, false);
  const video = world.camera, aspect = width / height;
  const halfHeight = Math.min(video.height / 2 / video.fy, video.width / 2 / video.fx / aspect);
  camera.fov = (2 * Math.atan(halfHeight) * 180) / Math.PI;
  camera.aspect = aspect;
  camera.updateProjectionMatrix();
}

/* Cameras of the video, 3x4 camera-to-world by rows in the video's axes, as places and turns of three's. */
const shots = world.path.map((m) => {
  const matrix = new THREE.Matrix4().set(m[0], -m[1], -m[2], m[3], -m[4], m[5], m[6], -m[7], -m[8], m[9], m[10], -m[11], 0, 0, 0, 1);
  const position = new THREE.Vector3(), quaternion = new THREE.Quaternion(), scale = new THREE.Vector3();
  matrix.decompose(position, quaternion, scale);
  return { position, quaternion };
});

/* A person's view: a point to turn about, and angles; the wheel moves along the view, keys move freely. */
const view = { pivot: new THREE.Vector3(), distance: world.pivot, yaw: 0, pitch: 0 };
let flying = null, moved = true, quiet = 0;
function home() {
  view.distance = world.pivot; view.yaw = 0; view.pitch = 0;
  view.pivot.set(0, 0, -world.pivot);
  flying = null; place();
}
function place() {
  const direction = new THREE.Vector3(0, 0, 1).applyEuler(new THREE.Euler(view.pitch, view.yaw, 0, "YXZ"));
  camera.position.copy(view.pivot).addScaledVector(direction, view.distance);
  camera.rotation.set(view.pitch, view.yaw, 0, "YXZ");
  moved = true;
}
function shift(right, up, forward) {
  const by = new THREE.Vector3(right, up, -forward).applyQuaternion(camera.quaternion);
  view.pivot.add(by); place();
}
function stopFlight() { if (flying !== null) { flying = null; label(); adopt(); } }
/* Go on from where the flight was. */
function adopt() {
  const angles = new THREE.Euler().setFromQuaternion(camera.quaternion, "YXZ");
  view.pitch = angles.x; view.yaw = angles.y; view.distance = world.pivot;
  view.pivot.copy(camera.position).addScaledVector(new THREE.Vector3(0, 0, -1).applyQuaternion(camera.quaternion), world.pivot);
  place();
}
function label() { $("fly").setAttribute("aria-pressed", String(flying !== null)); $("lines").setAttribute("aria-pressed", String(lines.visible)); }

const pointers = new Map();
canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); pointers.set(event.pointerId, event); stopFlight(); });
for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => pointers.delete(event.pointerId));
canvas.addEventListener("pointermove", (event) => {
  const last = pointers.get(event.pointerId);
  if (!last) return;
  const dx = event.clientX - last.clientX, dy = event.clientY - last.clientY, size = Math.max(1, stage.clientHeight);
  if (pointers.size === 2) {
    const other = [...pointers.values()].find((p) => p.pointerId !== event.pointerId);
    const was = Math.hypot(last.clientX - other.clientX, last.clientY - other.clientY);
    const now = Math.hypot(event.clientX - other.clientX, event.clientY - other.clientY);
    shift(-dx / size * view.distance / 2, dy / size * view.distance / 2, (now - was) / size * view.distance);
  } else if (event.shiftKey || event.buttons & 6) shift(-dx / size * view.distance, dy / size * view.distance, 0);
  else {
    view.yaw -= (dx / size) * 1.6;
    view.pitch = Math.max(-1.5, Math.min(1.5, view.pitch - (dy / size) * 1.6));
    place();
  }
  pointers.set(event.pointerId, event);
});
canvas.addEventListener("contextmenu", (event) => event.preventDefault());
canvas.addEventListener("wheel", (event) => { event.preventDefault(); stopFlight(); shift(0, 0, -Math.sign(event.deltaY) * Math.min(1, Math.abs(event.deltaY) / 100) * world.pivot * 0.08); }, { passive: false });

const held = new Set();
const KEYS = { KeyW: [0, 0, 1], KeyS: [0, 0, -1], KeyA: [-1, 0, 0], KeyD: [1, 0, 0], KeyE: [0, 1, 0], KeyQ: [0, -1, 0] };
const TURNS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA|VIDEO)$/.test(event.target.tagName)) return;
  if (event.code in KEYS || (event.code in TURNS && document.activeElement === canvas)) { held.add(event.code); stopFlight(); event.preventDefault(); }
  else if (event.code === "KeyR") $("home").click();
  else if (event.code === "KeyP") $("fly").click();
  else if (event.code === "KeyC") $("lines").click();
  else if (event.code === "KeyF") $("full").click();
});
addEventListener("keyup", (event) => held.delete(event.code));
addEventListener("blur", () => held.clear());

/* The path as a line, with the pyramid of every tenth camera. */
const lines = new THREE.Group();
lines.visible = false;
{
  const points = shots.map((s) => s.position);
  lines.add(new THREE.Line(new THREE.BufferGeometry().setFromPoints(points), new THREE.LineBasicMaterial({ color: 0x4aa8ff, depthTest: false })));
  const x = (world.camera.width / 2 / world.camera.fx) * world.pivot * 0.025, y = (world.camera.height / 2 / world.camera.fy) * world.pivot * 0.025, z = -world.pivot * 0.025;
  const corners = [[x, y, z], [-x, y, z], [-x, -y, z], [x, -y, z]].map((c) => new THREE.Vector3(...c));
  shots.forEach((shot, number) => {
    if (number % 10) return;
    const [a, b, c, d] = corners.map((corner) => corner.clone().applyQuaternion(shot.quaternion).add(shot.position)), o = shot.position;
    const edges = [o, a, o, b, o, c, o, d, a, b, b, c, c, d, d, a];
    lines.add(new THREE.LineSegments(new THREE.BufferGeometry().setFromPoints(edges), new THREE.LineBasicMaterial({ color: 0xffc14a, depthTest: false, transparent: true, opacity: 0.8 })));
  });
  lines.traverse((part) => { part.renderOrder = 10; });
  scene.add(lines);
}

$("home").addEventListener("click", () => { home(); label(); });
$("fly").addEventListener("click", () => { if (flying === null) flying = performance.now(); else stopFlight(); label(); });
$("lines").addEventListener("click", () => {
  lines.visible = !lines.visible;
  /* from the seed the path starts inside the lens: step back to see it */
  if (lines.visible && flying === null && camera.position.length() < world.pivot * 0.05) shift(0, world.pivot * 0.05, -world.pivot * 0.16);
  label(); moved = true;
});
$("full").addEventListener("click", () => { if (document.fullscreenElement) document.exitFullscreen(); else if (stage.requestFullscreen) stage.requestFullscreen().catch(() => {}); });
for (const id of ["home", "fly", "lines", "full"]) $(id).disabled = false;

function flight(now) {
  const seconds = (now - flying) / 1000, last = shots.length - 1;
  const span = Math.max(2, last / world.fps), phase = (seconds / span) % 2;
  const where = (phase > 1 ? 2 - phase : phase) * last, k = Math.min(last - 1, Math.floor(where)), part = where - k;
  if (last < 1) return;
  camera.position.lerpVectors(shots[k].position, shots[k + 1].position, part);
  camera.quaternion.slerpQuaternions(shots[k].quaternion, shots[k + 1].quaternion, part);
  moved = true;
}

let before = 0;
renderer.setAnimationLoop((now) => {
  if (document.hidden) return;
  if (flying !== null) flight(now);
  /* by the clock, so that slow machines move as fast as others */
  const passed = Math.min(0.25, (now - before) / 1000);
  before = now;
  for (const code of held) {
    if (code in KEYS) shift(...KEYS[code].map((step) => step * world.pivot * 0.5 * passed));
    else { view.yaw += TURNS[code][0] * passed; view.pitch = Math.max(-1.5, Math.min(1.5, view.pitch + TURNS[code][1] * passed)); place(); }
  }
  /* Spark sorts a few frames behind the camera: draw on for a while after the last movement, then rest. */
  if (moved) { quiet = 0; moved = false; }
  if (quiet++ < 45) renderer.render(scene, camera);
});
new ResizeObserver(() => { fit(); moved = true; }).observe(stage);

/* Whether the middle of the picture has been drawn: only then may the poster go. */
function hasPixels() {
  renderer.render(scene, camera);
  const gl = renderer.getContext(), size = 32, data = new Uint8Array(4 * size * size);
  gl.readPixels((gl.drawingBufferWidth - size) >> 1, (gl.drawingBufferHeight - size) >> 1, size, size, gl.RGBA, gl.UNSIGNED_BYTE, data);
  const empty = [0x0b, 0x0c, 0x0d];
  let drawn = 0;
  for (let i = 0; i < data.length; i += 4) drawn += empty.some((value, c) => Math.abs(data[i + c] - value) > 3);
  return drawn > size * size * 0.5;
}
async function untilDrawn() {
  for (let tries = 0; tries < 600; tries++) {
    if (hasPixels()) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return false;
}

let current = null;
async function show(file) {
  const mesh = placed(new SplatMesh({ url: file.url }), file.turned);
  await mesh.initialized;
  scene.add(mesh);
  const smaller = current;
  current = mesh;
  moved = true;
  if (smaller) {
    /* both lie there for the blink of an eye; better than a black frame */
    await new Promise((resolve) => setTimeout(resolve, 120));
    scene.remove(smaller); smaller.dispose(); moved = true;
  }
  return untilDrawn();
}

async function start() {
  stage.style.aspectRatio = world.camera.width + " / " + world.camera.height;
  home(); fit();
  const files = world.splats, started = performance.now();
  for (const [number, file] of files.entries()) {
    const last = number === files.length - 1;
    if (file.wait) {
      const button = $("more");
      button.hidden = false;
      button.textContent = "Load full detail (" + (file.bytes / 1e6).toFixed(0) + " MB)";
      await new Promise((resolve) => button.addEventListener("click", resolve, { once: true }));
      button.hidden = true;
    }
    say(number ? "Loading full detail (" + (file.bytes / 1e6).toFixed(1) + " MB)" : "Loading 3D (" + (file.bytes / 1e6).toFixed(1) + " MB)");
    const drawn = await show(file);
    if (drawn && !poster.classList.contains("gone")) poster.classList.add("gone");
    stage.dataset.shown = String(number + 1);
    stage.dataset.seconds = ((performance.now() - started) / 1000).toFixed(2);
    if (last) { say(""); stage.dataset.ready = "full"; } else stage.dataset.ready = "light";
  }
}

start().catch((error) => say("The 3D view could not be shown: " + error.message));
