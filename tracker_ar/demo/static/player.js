// The frames that were tracked: following them live, going back, playing them again.

import { drawScores } from "./scores.js";

const KEPT = 40; // decoded pictures at most; the browser's cache has the files of more
const AHEAD = 4; // fetched before they are needed
const RECENT = 20; // frames that the speed is taken from

export class Player {
  constructor(stage, { scrub, scores, changed }) {
    this.stage = stage;
    this.scrub = scrub;
    this.scores = scores;
    this.changed = changed;
    this.colours = [];
    this.reset(null);
    scrub.addEventListener("input", () => this.go(scrub.valueAsNumber));
    new ResizeObserver(() => this.refresh()).observe(scores);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.refresh());
  }

  // clip: as the server describes it, null for none yet.
  reset(clip) {
    this.clip = clip;
    this.pictures = new Map(); // frame number -> promise of its picture
    this.begin(0);
  }

  // A new run through the clip from frame `first` on, without frames so far.
  begin(run, first = 1) {
    this.stop();
    this.run = run;
    this.frames = [];
    this.first = this.current = first;
    this.following = true;
    this.ended = this.drawing = false;
    this.refresh();
  }

  add(frame) {
    this.frames.push(frame);
    if (this.following) this.current = this.last;
    this.refresh();
  }

  // The current frame as the server told it; undefined before there are any.
  get frame() {
    return this.frames[Math.min(this.current, this.last) - this.first];
  }

  // Number of the last frame that is there.
  get last() {
    return this.first + this.frames.length - 1;
  }

  // Number of the last frame that is there or expected.
  get total() {
    const expected = this.ended ? 0 : this.first + (this.clip?.length ?? 0) - 1;
    return Math.max(expected, this.last, this.first);
  }

  // Milliseconds per frame, the median of the last ones; undefined before there are any.
  speed() {
    const recent = this.frames.filter(({ state }) => state === "tracked").slice(-RECENT);
    const times = recent.map(({ milliseconds }) => milliseconds).sort((a, b) => a - b);
    return times[Math.floor(times.length / 2)];
  }

  // ---- going to a frame

  go(number) {
    this.following = false;
    this.current = Math.max(Math.min(number, this.last), this.first);
    this.refresh();
    this.changed();
  }

  step(by) {
    this.stop();
    this.go(this.current + by);
  }

  follow() {
    this.current = this.last;
    this.following = true;
    this.refresh();
    this.changed();
  }

  refresh() {
    this.scrub.min = this.first;
    this.scrub.max = this.total;
    this.scrub.value = this.current;
    this.scrub.setAttribute("aria-valuetext", `${this.current} of ${this.total}`);
    const places = [this.current - this.first, this.total - this.first];
    drawScores(this.scores, this.frames, ...places, this.colours);
    this.draw();
  }

  // Shows the current frame as soon as its picture is there; while one loads, those between are left out.
  async draw() {
    if (this.drawing || !this.frames.length) return;
    this.drawing = true;
    const run = this.run;
    let shown = 0;
    try {
      while (shown !== this.current && run === this.run) {
        const wanted = this.current;
        const picture = await this.load(wanted);
        if (run !== this.run) return;
        this.stage.show(picture, this.frames[wanted - this.first].targets);
        shown = wanted;
      }
    } catch {
      // a picture that did not come: the next one may
    } finally {
      if (run === this.run) this.drawing = false;
    }
  }

  async load(number) {
    const known = this.pictures.get(number);
    if (known) return known;
    const loading = fetchPicture(`/api/sessions/${this.clip.session}/runs/${this.run}/frames/${number}.jpg`);
    this.pictures.set(number, loading);
    loading.catch(() => this.pictures.delete(number));
    if (this.pictures.size > KEPT) this.pictures.delete(this.pictures.keys().next().value);
    return loading;
  }

  // ---- playing what is there

  // No more frames will come.
  settle() {
    this.ended = true;
    this.refresh();
  }

  toggle() {
    if (this.playing) {
      this.stop();
      this.changed();
      return;
    }
    if (this.current >= this.last) this.current = this.first;
    this.following = false;
    this.playing = true;
    const started = performance.now(), from = this.current;
    const tick = (now) => {
      if (!this.playing) return;
      const number = from + Math.floor(Math.max(now - started, 0) / 1000 * this.clip.fps);
      this.current = Math.min(number, this.last);
      const soon = Math.min(this.current + AHEAD, this.last);
      for (let next = this.current + 1; next <= soon; next++) this.load(next).catch(() => {});
      if (number >= this.last) this.playing = false;
      this.refresh();
      this.changed();
      if (this.playing) requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
    this.changed();
  }

  stop() {
    this.playing = false;
  }
}

async function fetchPicture(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`no picture at ${address}`);
  return createImageBitmap(await response.blob());
}
