// Masks in uncompressed COCO RLE: runs down the columns, beginning with background.

const FILL = 96; // opacity of the inside, of 255
const EDGE = 2; // width of the outline on the screen, pixels

// The smallest rectangle around a mask and what is in it, one byte a pixel; null for an empty mask.
export function decode({ size: [height, width], counts }) {
  let left = width, right = -1, top = height, bottom = -1;
  eachRun(counts, height, (column, from, to) => {
    left = Math.min(left, column);
    right = Math.max(right, column);
    top = Math.min(top, from);
    bottom = Math.max(bottom, to - 1);
  });
  if (right < 0) return null;
  const mask = { left, top, width: right - left + 1, height: bottom - top + 1 };
  mask.pixels = new Uint8Array(mask.width * mask.height);
  eachRun(counts, height, (column, from, to) => {
    for (let row = from; row < to; row++) mask.pixels[(row - top) * mask.width + column - left] = 1;
  });
  return mask;
}

// A decoded mask as a canvas, and where it belongs: filled, with a firm edge inside; null for an empty mask.
// scale: pixels of the screen for one of the mask.
export function picture(mask, [red, green, blue], scale) {
  if (!mask) return null;
  const { left, top, width, height, pixels } = mask;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const reach = Math.max(1, Math.round(EDGE / scale)); // of the edge, in pixels of the mask
  const inside = (row, column) =>
    row >= 0 && column >= 0 && row < height && column < width && pixels[row * width + column];
  for (let row = 0, index = 0; row < height; row++) {
    for (let column = 0; column < width; column++, index++) {
      if (!pixels[index]) continue;
      const edge = !(inside(row - reach, column) && inside(row + reach, column)
                     && inside(row, column - reach) && inside(row, column + reach));
      image.data.set([red, green, blue, edge ? 255 : FILL], 4 * index);
    }
  }
  context.putImageData(image, 0, 0);
  return { canvas, left, top };
}

function eachRun(counts, height, visit) {
  let position = 0;
  counts.forEach((count, index) => {
    const end = position + count;
    while (index % 2 && position < end) {
      const column = Math.floor(position / height);
      const stop = Math.min(end, (column + 1) * height);
      visit(column, position - column * height, stop - column * height);
      position = stop;
    }
    position = end;
  });
}
