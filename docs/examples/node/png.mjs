// Decodes the PNGs of a capsule: 8 bits, red, green and blue, not interlaced (PNG specification, sections 7 and 9).

import { inflateSync } from "node:zlib";

/** Gives height, width and the pixels, row by row. */
export function decodePng(data) {
  let place = 8;
  let height = 0;
  let width = 0;
  const parts = [];
  while (place < data.length) {
    const length = data.readUInt32BE(place);
    const kind = data.toString("latin1", place + 4, place + 8);
    const body = data.subarray(place + 8, place + 8 + length);
    if (kind === "IHDR") {
      [width, height] = [body.readUInt32BE(0), body.readUInt32BE(4)];
      if (body[8] !== 8 || body[9] !== 2 || body[12] !== 0) throw new Error("expected a plain RGB image of 8 bits");
    }
    if (kind === "IDAT") parts.push(body);
    place += 12 + length;
  }
  return { height, width, pixels: unfilter(inflateSync(Buffer.concat(parts)), height, 3 * width) };
}

/** Undoes the filters: each row begins with the number of its own. */
function unfilter(data, height, stride) {
  const pixels = new Uint8Array(height * stride);
  for (let row = 0; row < height; row++) {
    const filter = data[row * (stride + 1)];
    for (let column = 0; column < stride; column++) {
      const at = row * stride + column;
      const left = column < 3 ? 0 : pixels[at - 3];
      const up = row === 0 ? 0 : pixels[at - stride];
      const corner = row === 0 || column < 3 ? 0 : pixels[at - stride - 3];
      const guess = [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter];
      pixels[at] = data[row * (stride + 1) + 1 + column] + guess; // the array keeps the lower 8 bits
    }
  }
  return pixels;
}

function paeth(left, up, corner) {
  const guess = left + up - corner;
  const [toLeft, toUp, toCorner] = [left, up, corner].map((value) => Math.abs(guess - value));
  if (toLeft <= toUp && toLeft <= toCorner) return left;
  return toUp <= toCorner ? up : corner;
}
