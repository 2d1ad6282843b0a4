// The scores of all targets over the frames, as lines above the slider. current, end: places of the frame
// that is shown and of the last one expected, from 0.

export function drawScores(canvas, frames, current, end, colours) {
  const density = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width) return;
  canvas.width = Math.round(width * density);
  canvas.height = Math.round(height * density);
  const context = canvas.getContext("2d");
  const style = getComputedStyle(canvas);
  context.scale(density, density);
  const x = (place) => (end ? (place / end) * (width - 4) + 2 : width / 2);
  const y = (score) => height - 3 - score * (height - 6);

  context.fillStyle = style.getPropertyValue("--line");
  for (const score of [0, 0.5, 1]) context.fillRect(0, Math.round(y(score)), width, 1);
  frames.forEach((frame, index) => { // frames that could not be used
    if (frame.state === "repeated") context.fillRect(x(index) - 1, 0, 2, height);
  });
  const targets = frames.length ? frames[0].targets.length : 0;
  for (let target = targets - 1; target >= 0; target--) {
    context.beginPath();
    frames.forEach((frame, index) => context.lineTo(x(index), y(frame.targets[target].score)));
    context.strokeStyle = `rgb(${colours[target % colours.length]})`;
    context.lineWidth = 2;
    context.lineJoin = "round";
    context.stroke();
  }
  if (frames.length) {
    context.fillStyle = style.getPropertyValue("--ink");
    context.fillRect(x(current) - 0.75, 0, 1.5, height);
  }
}
