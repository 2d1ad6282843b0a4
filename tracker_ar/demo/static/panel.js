// What the page shows of the state that it is in.

export const $ = (id) => document.getElementById(id);

export function show(id, visible) {
  $(id).hidden = !visible;
}

export function element(kind, name, text) {
  const made = document.createElement(kind);
  made.className = name;
  made.textContent = text;
  return made;
}

export function megabytes(bytes) {
  return `${Math.round(bytes / 2 ** 20)} MB`;
}

// Brings everything on the page up to date.
export function renderPage(state, stage, player) {
  const { phase, clip } = state;
  const watching = ["tracking", "saving", "done"].includes(phase);
  const live = clip?.kind === "camera";
  document.body.dataset.phase = phase;
  show("start", phase === "start");
  show("work", phase !== "start");
  show("leave", phase !== "start");
  show("transport", watching);
  show("seek", phase === "draw" && clip.announced > 1);
  show("views", watching);
  show("speed", watching);
  show("freeze", phase === "camera");
  show("go", phase === "draw");
  show("thaw", phase === "draw" && live);
  show("finish", phase === "tracking");
  show("download", phase === "done" && state.results);
  show("again", phase === "done");
  show("contents", phase === "done" && state.results);
  show("live", phase === "tracking" && !player.following);
  $("go").disabled = !stage.boxes.length;
  $("go").textContent = stage.boxes.length > 1 ? `Track ${stage.boxes.length} targets` : "Start tracking";
  $("again").textContent = live ? "Track with the camera again" : "Choose other targets";
  const words = hint(state, stage.boxes.length > 0, live);
  if ($("hint").textContent !== words) $("hint").textContent = words; // it is read aloud when it changes
  renderTargets(phase === "draw", stage, player);
  if (watching) renderNumbers(state, player);
}

function hint({ phase, paused, results }, drawn, live) {
  return {
    start: "",
    camera: "Freeze the picture, or drag a box right away, when your target is well in view.",
    draw: drawn
      ? "Adjust the box, draw more of them, or start." + (live ? " Keep the target about where it is." : "")
      : "Drag a box around what you want to follow. Several boxes follow several targets.",
    tracking: paused ? "Paused. Look back with the slider, or continue."
      : `Following${live ? " the camera" : ""}. Look back with the slider at any time.`,
    saving: "Putting the result together …",
    done: results ? "Done. Play it, look at single frames, compare box and mask." : "Ended.",
  }[phase];
}

function renderTargets(drawing, stage, player) {
  const targets = drawing ? stage.boxes : player.frame?.targets ?? [];
  const list = $("targets");
  while (list.children.length > targets.length) list.lastElementChild.remove();
  while (list.children.length < targets.length) list.append(targetItem(list.children.length, stage));
  targets.forEach((target, index) => {
    const item = list.children[index];
    const score = drawing ? "" : target.score.toFixed(2);
    item.querySelector(".score").textContent = score;
    const meter = item.querySelector(".meter");
    meter.hidden = drawing;
    meter.setAttribute("aria-valuenow", score);
    meter.style.setProperty("--fraction", drawing ? 0 : target.score);
    item.querySelector("button").hidden = !drawing;
    item.classList.toggle("selected", drawing && index === stage.selected);
  });
  $("targets-title").textContent = targets.length > 1 ? `Targets (${targets.length})` : "Target";
}

function targetItem(index, stage) {
  const item = document.createElement("li");
  const swatch = element("span", "swatch", `${index + 1}`);
  swatch.style.setProperty("--colour", `rgb(${stage.colour(index)})`);
  const meter = element("span", "meter", "");
  meter.setAttribute("role", "meter");
  meter.setAttribute("aria-valuemin", 0);
  meter.setAttribute("aria-valuemax", 1);
  meter.setAttribute("aria-label", `Score of target ${index + 1}`);
  meter.style.setProperty("--colour", `rgb(${stage.colour(index)})`);
  const remove = element("button", "quiet", "Remove");
  remove.type = "button";
  remove.setAttribute("aria-label", `Remove target ${index + 1}`);
  remove.addEventListener("click", () => stage.remove(index));
  const name = element("span", "name", `Target ${index + 1}`);
  item.append(swatch, name, meter, element("span", "score", ""), remove);
  return item;
}

function renderNumbers({ phase, paused }, player) {
  const playing = phase === "tracking" ? !paused : player.playing;
  $("play").dataset.shows = playing ? "pause" : "play";
  $("play").setAttribute("aria-label", playing ? "Pause" : phase === "tracking" ? "Continue" : "Play");
  $("play").disabled = phase === "saving";
  $("number").textContent = player.current;
  $("total").textContent = ` / ${player.total}`;
  const speed = player.speed();
  $("milliseconds").textContent = speed ? speed.toFixed(speed < 100 ? 1 : 0) : "–";
  $("fps").textContent = speed ? (1000 / speed).toFixed(1) : "–";
  const frame = player.frame;
  $("badge").hidden = frame?.state !== "repeated";
  $("badge").textContent = `Not usable: the previous result stands. ${frame?.problem ?? ""}`;
}
