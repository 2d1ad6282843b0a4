// The page: which phase it is in, and what happens on each click.
//
// Phases: start - choose something; camera - its live picture; draw - boxes on the first frame;
// tracking - frames come in; saving - the server packs the result; done - all is there.

import { call, forget, listen, upload } from "./api.js";
import { Camera } from "./camera.js";
import { $, element, megabytes, renderPage, show } from "./panel.js";
import { Player } from "./player.js";
import { Stage } from "./stage.js";

const state = {
  phase: "start", server: null, clip: null, start: 1, paused: false, results: false, busy: false,
};
let camera = null;
let stopListening = () => {};
let sending = null;
let forgetting = Promise.resolve();
const KEEP_ALIVE = 5 * 60 * 1000; // milliseconds; the server forgets what nobody asks for in half an hour

const stage = new Stage($("stage"), {
  boxes: () => render(),
  full: () => say(`No more than ${state.server.limits.targets} targets.`),
  press: () => { if (state.phase === "camera") attempt(freeze); },
});
const player = new Player(stage, { scrub: $("scrub"), scores: $("scores"), changed: () => render() });

function enter(phase) {
  state.phase = phase;
  stage.editable = phase === "draw";
  if (phase === "draw") stage.show(stage.image);
  render();
}

function render() {
  renderPage(state, stage, player);
}

function say(text) {
  $("message-text").textContent = text;
  show("message", Boolean(text));
}

// Carries out what a click asked for; what goes wrong is shown in words.
async function attempt(action, ...given) {
  say("");
  try {
    await action(...given);
  } catch (error) {
    if (error.name !== "AbortError") say(error.message);
  }
}

// The same for what takes a while: a second click meanwhile does nothing.
async function attemptOnce(action, ...given) {
  if (state.busy) return;
  state.busy = true;
  await attempt(action, ...given);
  state.busy = false;
}

// ---- choosing

async function openFiles(list) {
  const files = [...list].sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  if (!files.length) return;
  const { bytes, frames } = state.server.limits;
  const size = files.reduce((sum, file) => sum + file.size, 0);
  if (size > bytes) {
    throw new Error(`That is ${megabytes(size)}, more than the limit of ${megabytes(bytes)}. Choose a `
                    + "shorter video, or start alpharefine demo with a larger --max-upload.");
  }
  if (files.length > frames) throw new Error(`${files.length} images are too many: ${frames} at most.`);
  sending = new AbortController();
  show("progress", true);
  $("drop").classList.add("busy");
  try {
    const clip = await upload(files, showProgress, sending.signal);
    openClip(clip, files[0].name.replace(/\.[^.]*$/, ""));
    if (clip.announced > clip.length) {
      say(`The video has about ${clip.announced} frames; ${clip.length} of them will be tracked, from the `
          + "one that you start with (alpharefine demo --max-frames allows more).");
    }
  } finally {
    sending = null;
    show("progress", false);
    $("drop").classList.remove("busy");
    $("files").value = "";
  }
}

function showProgress(fraction) {
  $("progress-bar").value = fraction;
  const percent = Math.floor(100 * fraction);
  $("progress-text").textContent = fraction < 1 ? `Sending, ${percent} %` : "Reading it …";
}

async function openExample(name) {
  const clip = await call("POST", `/api/examples/${name}`);
  openClip(clip, name);
  stage.boxes = clip.boxes;
  render();
  await startTracking();
}

function forgetClip() {
  if (state.clip?.session) forgetting = forget(state.clip.session);
}

function openClip(clip, name) {
  forgetClip();
  state.clip = { ...clip, name };
  $("download").download = `${name}-tracked.zip`;
  $("download").href = `/api/sessions/${clip.session}/results.zip`;
  stage.boxes = [];
  stage.selected = -1;
  stage.setSize(clip.width, clip.height);
  player.reset(state.clip);
  state.start = $("start-frame").value = 1;
  $("start-frame").max = clip.announced ?? 1;
  showStart(1);
  backToStart();
  enter("draw");
  $("stage").focus({ preventScroll: true });
}

function backToStart() {
  const start = state.start;
  player.load(start).then((image) => {
    if (state.phase === "draw" && state.start === start) stage.show(image);
  }).catch(() => {});
}

function showStart(number) {
  $("start-number").textContent = number;
  $("start-total").textContent = ` / ${$("start-frame").max}`;
}

// Gives the targets in another frame than the first one.
async function startAt(frame) {
  $("start-frame").disabled = $("go").disabled = true;
  try {
    const { length } = await call("POST", `/api/sessions/${state.clip.session}/start`, { frame });
    state.clip.length = length;
    state.start = frame;
    backToStart();
  } finally {
    $("start-frame").disabled = false;
    $("start-frame").value = state.start;
    showStart(state.start);
    render();
  }
}

// ---- the camera

async function openCamera() {
  camera?.close();
  camera = await Camera.open();
  forgetClip();
  state.clip = { kind: "camera", name: "camera", session: null };
  state.results = false;
  stage.boxes = [];
  stage.setSize(...camera.size);
  player.reset(null);
  enter("camera");
  const own = camera;
  const draw = () => {
    if (state.phase !== "camera" || camera !== own) return;
    stage.show(own.video);
    requestAnimationFrame(draw);
  };
  draw();
}

async function freeze() {
  state.phase = "draw"; // at once: the press that asked for it may begin a box
  stage.editable = true;
  const still = camera.take();
  stage.show(camera.canvas);
  state.still = await still;
  enter("draw");
}

async function sendPicture() {
  if (state.phase !== "tracking" || state.paused || !camera) return;
  const wait = state.nextPicture - performance.now();
  if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
  if (state.phase !== "tracking" || state.paused || !camera) return;
  state.nextPicture = performance.now() + 1000 / state.clip.fps;
  await call("POST", `/api/sessions/${state.clip.session}/pictures`, await camera.take());
}

// ---- tracking

async function startTracking() {
  const boxes = stage.boxes.map((box) => box.map((value) => Math.round(100 * value) / 100));
  if (state.clip.kind === "camera") {
    const clip = await call("POST", "/api/cameras", state.still);
    forgetClip();
    state.clip = { ...state.clip, ...clip };
    $("download").href = `/api/sessions/${clip.session}/results.zip`;
    $("download").download = "camera-tracked.zip";
    player.reset(state.clip);
    state.start = 1;
  }
  await forgetting; // one video is tracked at a time
  const { run } = await call("POST", `/api/sessions/${state.clip.session}/track`, { boxes });
  state.paused = state.results = false;
  state.nextPicture = 0;
  player.begin(run, state.start);
  enter("tracking");
  stopListening();
  stopListening = listen(state.clip.session, run, receive, lost);
}

function receive(message) {
  if (message.type === "frame") {
    player.add(message);
    if (camera) sendPicture().catch((error) => { if (state.phase === "tracking") say(error.message); });
  } else if (message.type === "saving") {
    enter("saving");
  } else {
    ended(message);
  }
  render();
}

function ended(message) {
  camera?.close();
  camera = null;
  state.results = message.results;
  if (message.type === "failed") {
    say(message.message + (message.results ? " What was tracked until then can be downloaded." : ""));
  }
  if (player.frames.length) {
    player.settle();
    enter("done");
  } else {
    backToStart();
    enter("draw");
  }
}

function lost(error) {
  say(error.message);
  ended({ type: "done", results: false });
}

async function playOrPause() {
  if (state.phase === "tracking") {
    state.paused = !state.paused;
    render();
    await call("POST", `/api/sessions/${state.clip.session}/${state.paused ? "pause" : "resume"}`);
    if (!state.paused && camera) await sendPicture();
  } else if (state.phase === "done") {
    player.toggle();
  }
}

async function finish() {
  await call("POST", `/api/sessions/${state.clip.session}/finish`);
}

function again() {
  if (state.clip.kind === "camera") {
    attemptOnce(openCamera);
    return;
  }
  player.begin(0);
  backToStart();
  enter("draw");
}

function leave() {
  stopListening();
  player.stop();
  camera?.close();
  camera = null;
  forgetClip();
  state.clip = null;
  say("");
  enter("start");
}

// ---- the controls

function connect() {
  const drop = $("drop");
  $("choose").addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", () => attemptOnce(openFiles, $("files").files));
  $("progress-cancel").addEventListener("click", () => sending?.abort());
  for (const name of ["dragover", "dragleave", "drop"]) {
    window.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover" && state.phase === "start");
      if (name === "drop" && state.phase === "start") attemptOnce(openFiles, event.dataTransfer.files);
    });
  }
  $("camera").addEventListener("click", () => attemptOnce(openCamera));
  $("freeze").addEventListener("click", () => attempt(freeze));
  $("thaw").addEventListener("click", () => attemptOnce(openCamera));
  $("go").addEventListener("click", () => attemptOnce(startTracking));
  $("play").addEventListener("click", () => attempt(playOrPause));
  $("start-frame").addEventListener("input", () => showStart($("start-frame").value));
  $("start-frame").addEventListener("change", () => attemptOnce(startAt, $("start-frame").valueAsNumber));
  $("finish").addEventListener("click", () => attempt(finish));
  $("live").addEventListener("click", () => player.follow());
  $("again").addEventListener("click", again);
  $("leave").addEventListener("click", leave);
  $("message-close").addEventListener("click", () => say(""));
  for (const input of document.querySelectorAll("input[name=view]")) {
    input.addEventListener("change", () => setView(input.value));
  }
  window.addEventListener("keydown", shortcut);
  window.addEventListener("pagehide", forgetClip);
  setInterval(keepAlive, KEEP_ALIVE);
  window.addEventListener("pageshow", (event) => { if (event.persisted) window.location.reload(); });
}

function keepAlive() {
  const session = state.clip?.session;
  if (session) fetch(`/api/sessions/${session}/runs/0/frames/1.jpg`, { cache: "no-store" }).catch(() => {});
}

function setView(view) {
  stage.view = view;
  document.querySelector(`input[name=view][value=${view}]`).checked = true;
  stage.draw();
}

function shortcut(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.target.closest("button, a, summary, input[type=radio]")) return; // they have keys of their own
  if (!["tracking", "done"].includes(state.phase)) return;
  const views = ["mask", "box", "both"];
  if (event.key === " ") attempt(playOrPause);
  else if (event.key === ",") player.step(-1);
  else if (event.key === ".") player.step(1);
  else if (event.key.toLowerCase() === "m") setView(views[(views.indexOf(stage.view) + 1) % 3]);
  else return;
  event.preventDefault();
}

function exampleCard({ name, title, note }) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  const image = document.createElement("img");
  image.src = `/api/examples/${name}/thumbnail.jpg`;
  image.alt = "";
  image.width = 320;
  image.height = 240;
  button.append(image, element("strong", "", title), element("span", "", note));
  button.addEventListener("click", () => attemptOnce(openExample, name));
  item.append(button);
  return item;
}

async function begin() {
  connect();
  render();
  const server = await call("GET", "/api/about");
  state.server = server;
  stage.colours = server.colours;
  stage.most = server.limits.targets;
  player.colours = server.colours;
  $("about").textContent = server.about;
  if (!server.local) {
    $("privacy").textContent = "Your video goes to the computer that serves this page, and nowhere else.";
  }
  $("limits").textContent = "MP4, MOV, WebM, MKV, AVI or a set of images, up to "
    + `${megabytes(server.limits.bytes)} and ${server.limits.frames.toLocaleString("en")} frames.`;
  $("examples").replaceChildren(...server.examples.map(exampleCard));
}

attempt(begin);
