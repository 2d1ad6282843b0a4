// The picture with everything drawn over it, and the boxes that are dragged on it.
// Boxes are [x, y, width, height] in pixels of the video.

import { decode, picture } from "./masks.js";

const HANDLE = 9; // reach of a box's corner, in pixels of the screen
const SMALLEST = 6; // a drag shorter than this makes no box

export class Stage {
  // `on` is told: boxes() when boxes changed, press() before the first one is drawn.
  constructor(canvas, on) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.on = on;
    this.colours = [[255, 72, 40]];
    this.most = 1;
    this.size = [16, 9];
    this.image = null; // what drawImage takes
    this.targets = null; // of a tracked frame
    this.masks = null; // their pictures, made when they are drawn
    this.boxes = [];
    this.selected = -1;
    this.editable = false;
    this.view = "both";
    this.drag = null;
    new ResizeObserver(() => {
      this.masks = null; // their edges are as wide as the screen needs
      this.draw();
    }).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("pointercancel", (event) => this.release(event));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.draw());
    canvas.addEventListener("focus", () => this.draw());
  }

  setSize(width, height) {
    this.size = [width, height];
    this.canvas.style.aspectRatio = `${width} / ${height}`;
    this.canvas.style.setProperty("--ratio", width / height);
  }

  show(image, targets = null) {
    this.image = image;
    if (targets !== this.targets) this.masks = null;
    this.targets = targets;
    this.draw();
  }

  // Pixels of the screen for one of the video.
  get scale() {
    return this.canvas.clientWidth / this.size[0];
  }

  // ---- drawing

  draw() {
    const { canvas, context } = this;
    const density = window.devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * density);
    const height = Math.round(canvas.clientHeight * density);
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    if (!this.image) {
      context.clearRect(0, 0, width, height);
      return;
    }
    context.drawImage(this.image, 0, 0, width, height);
    context.setTransform(width / this.size[0], 0, 0, height / this.size[1], 0, 0);
    if (this.targets) this.drawTargets();
    if (this.editable) this.drawBoxes();
  }

  drawTargets() {
    if (this.view !== "box") {
      this.masks ??= this.targets.map(({ mask }, index) => (
        picture(decode(mask), this.colour(index), this.scale)));
      for (const mask of this.masks) if (mask) this.context.drawImage(mask.canvas, mask.left, mask.top);
    }
    if (this.view !== "mask") this.targets.forEach(({ box }, index) => this.outline(box, index));
    this.targets.forEach(({ box, score }, index) => {
      const mask = this.view === "mask" ? this.masks[index] : null;
      this.label(mask ? [mask.left, mask.top] : box, `${index + 1}  ${score.toFixed(2)}`, index);
    });
  }

  drawBoxes() {
    this.boxes.forEach((box, index) => {
      this.context.fillStyle = `rgb(${this.colour(index)}, 0.14)`;
      this.context.fillRect(...box);
      this.outline(box, index);
      this.label(box, `${index + 1}`, index);
      if (index !== this.selected) return;
      const side = HANDLE / this.scale;
      this.context.fillStyle = "#fff";
      this.context.strokeStyle = `rgb(${this.colour(index)})`;
      this.context.lineWidth = 2 / this.scale;
      for (const [x, y] of corners(box)) {
        this.context.beginPath();
        this.context.rect(x - side / 2, y - side / 2, side, side);
        this.context.fill();
        this.context.stroke();
      }
    });
  }

  outline(box, index) {
    this.context.lineJoin = "round";
    for (const [style, width] of [["rgb(0, 0, 0, 0.55)", 4.5], [`rgb(${this.colour(index)})`, 2.25]]) {
      this.context.strokeStyle = style;
      this.context.lineWidth = width / this.scale;
      this.context.strokeRect(...box);
    }
  }

  label([x, y], text, index) {
    const { context, scale } = this;
    context.save();
    context.font = `600 ${13 / scale}px system-ui, sans-serif`;
    const width = context.measureText(text).width + 12 / scale;
    const height = 20 / scale;
    const left = Math.min(Math.max(x - 1 / scale, 0), Math.max(this.size[0] - width, 0));
    const top = Math.min(Math.max(y - height - 3 / scale, 0), Math.max(this.size[1] - height, 0));
    context.fillStyle = `rgb(${this.colour(index)})`;
    context.beginPath();
    context.roundRect(left, top, width, height, 5 / scale);
    context.fill();
    context.fillStyle = "#101214";
    context.textBaseline = "middle";
    context.fillText(text, left + 6 / scale, top + height / 2 + 0.5 / scale);
    context.restore();
  }

  colour(index) {
    return this.colours[index % this.colours.length];
  }

  // ---- the pointer

  point(event) {
    const rectangle = this.canvas.getBoundingClientRect();
    return [
      ((event.clientX - rectangle.left) / rectangle.width) * this.size[0],
      ((event.clientY - rectangle.top) / rectangle.height) * this.size[1],
    ];
  }

  press(event) {
    if (event.button !== 0) return;
    this.on.press();
    if (!this.editable) return;
    const start = this.point(event);
    const held = this.held(start);
    if (!held && this.boxes.length >= this.most) {
      this.on.full();
      return;
    }
    this.canvas.setPointerCapture(event.pointerId);
    if (held) {
      this.selected = held.index;
      this.drag = { ...held, start, box: [...this.boxes[held.index]] };
    } else {
      this.boxes.push([...start, 0, 0]);
      this.selected = this.boxes.length - 1;
      this.drag = { index: this.selected, anchor: start, start, fresh: true };
    }
    this.draw();
  }

  // The box under a point: { index } to move it, with `anchor`, the opposite corner, to resize it.
  held([x, y]) {
    const reach = (HANDLE + 3) / this.scale;
    for (let index = this.boxes.length - 1; index >= 0; index--) {
      const four = corners(this.boxes[index]);
      const corner = four.findIndex(([cx, cy]) => Math.hypot(cx - x, cy - y) < reach);
      if (corner >= 0) return { index, anchor: four[(corner + 2) % 4] };
    }
    for (let index = this.boxes.length - 1; index >= 0; index--) {
      const [left, top, width, height] = this.boxes[index];
      if (x >= left && y >= top && x <= left + width && y <= top + height) return { index };
    }
    return null;
  }

  move(event) {
    const [x, y] = this.point(event);
    if (!this.drag) {
      const held = this.editable && this.held([x, y]);
      this.canvas.style.cursor = held ? (held.anchor ? "nwse-resize" : "move") : "";
      return;
    }
    const { index, anchor, start, box } = this.drag;
    this.boxes[index] = anchor
      ? between(anchor, [clamp(x, 0, this.size[0]), clamp(y, 0, this.size[1])])
      : this.inside([box[0] + x - start[0], box[1] + y - start[1], box[2], box[3]]);
    this.draw();
  }

  release() {
    if (!this.drag) return;
    const { index } = this.drag;
    this.drag = null;
    const [, , width, height] = this.boxes[index];
    if (Math.min(width, height) * this.scale < SMALLEST) {
      this.boxes.splice(index, 1);
      this.selected = this.boxes.length - 1;
    }
    this.draw();
    this.on.boxes();
  }

  inside([x, y, width, height]) {
    return [clamp(x, 0, this.size[0] - width), clamp(y, 0, this.size[1] - height), width, height];
  }

  // ---- the keyboard

  key(event) {
    if (!this.editable) return;
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const box = this.boxes[this.selected];
    if (event.key === "Enter" && this.boxes.length < this.most) {
      const [width, height] = this.size;
      this.boxes.push([width * 0.4, height * 0.4, width * 0.2, height * 0.2]);
      this.selected = this.boxes.length - 1;
    } else if ((event.key === "Delete" || event.key === "Backspace") && box) {
      this.remove(this.selected);
    } else if (event.key in moves && box) {
      const step = Math.max(1, Math.round(4 / this.scale));
      const [dx, dy] = moves[event.key].map((value) => value * step);
      const [x, y, width, height] = box;
      this.boxes[this.selected] = event.shiftKey
        ? [x, y, clamp(width + dx, step, this.size[0] - x), clamp(height + dy, step, this.size[1] - y)]
        : this.inside([x + dx, y + dy, width, height]);
    } else {
      return;
    }
    event.preventDefault();
    this.draw();
    this.on.boxes();
  }

  remove(index) {
    this.boxes.splice(index, 1);
    this.selected = this.boxes.length - 1;
    this.draw();
    this.on.boxes();
  }
}

function corners([x, y, width, height]) {
  return [[x, y], [x + width, y], [x + width, y + height], [x, y + height]];
}

function between([x1, y1], [x2, y2]) {
  return [Math.min(x1, x2), Math.min(y1, y2), Math.abs(x1 - x2), Math.abs(y1 - y2)];
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}
