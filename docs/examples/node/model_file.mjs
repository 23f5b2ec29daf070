// Reads what a model file of vit-edge says of itself, by docs/file-format.md: no protobuf library is needed.

import { createHash } from "node:crypto";

const METADATA = 14; // the field of ModelProto in onnx.proto3
const SEAL = Buffer.concat([Buffer.from("vit_edge.seal"), Buffer.from([0x12, 0x40])]);

/** Gives the file's metadata: entries by their names without `vit_edge.`, JSON already read where it is small. */
export function readModel(data) {
  checkSeal(data);
  const entries = {};
  for (const [field, value] of fields(data)) {
    if (field !== METADATA) continue;
    const parts = Object.fromEntries(fields(value));
    entries[parts[1].toString("utf8")] = parts[2].toString("utf8");
  }
  const entry = (key) => (`vit_edge.${key}` in entries ? JSON.parse(entries[`vit_edge.${key}`]) : undefined);
  if (entry("schema") !== 1) throw new Error(`expected a file of schema 1, got ${entry("schema")}`);
  return {
    labels: entry("labels"),
    preprocess: entry("preprocess"),
    scores: entry("scores") ?? {},
    // The one large entry: read when it is asked for.
    capsule: () => entry("capsule"),
  };
}

/** Makes what the graph takes of a crop: raw pixels, or planes that are normalised as the file says. */
export function toInput(crop, preprocess, type) {
  const [height, width] = preprocess.crop;
  if (type === "uint8") return { data: crop, dims: [1, height, width, 3] };
  const planes = new Float32Array(3 * height * width);
  for (let place = 0; place < height * width; place++) {
    for (let channel = 0; channel < 3; channel++) {
      const value = crop[3 * place + channel] / 255;
      planes[channel * height * width + place] = (value - preprocess.mean[channel]) / preprocess.std[channel];
    }
  }
  return { data: planes, dims: [1, 3, height, width] };
}

/** Turns logits into probabilities, at the file's temperature. */
export function toProbabilities(logits, scores) {
  const temperature = scores.temperature ?? 1;
  const largest = Math.max(...logits);
  const exponents = Array.from(logits, (logit) => Math.exp((logit - largest) / temperature));
  const sum = exponents.reduce((total, value) => total + value, 0);
  return exponents.map((value) => value / sum);
}

/** The SHA-256 of the whole file, with zeros in the place of its own digits, stands in the file. */
function checkSeal(data) {
  const start = data.lastIndexOf(SEAL) + SEAL.length;
  if (start < SEAL.length) throw new Error("the file carries no seal; make it with `vit-edge export`");
  const digest = createHash("sha256").update(data.subarray(0, start)).update("0".repeat(64));
  const found = digest.update(data.subarray(start + 64)).digest("hex");
  if (found !== data.toString("latin1", start, start + 64)) {
    throw new Error("the file was changed or damaged since its export; copy it again");
  }
}

/** Walks over the fields of a protobuf message: pairs of number and bytes, or value where it is a varint. */
function* fields(data) {
  let place = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      if (place >= data.length) throw new Error("the file ends within a number; copy it again");
      const byte = data[place++];
      value += (byte & 127) * scale; // no shift: those are of 32 bits
      if (byte < 128) return value;
    }
  };
  while (place < data.length) {
    const tag = varint();
    const kind = tag % 8;
    if (kind === 0) {
      yield [Math.floor(tag / 8), varint()];
      continue;
    }
    const length = { 1: 8, 2: -1, 5: 4 }[kind];
    if (length === undefined) throw new Error(`the file is no ONNX model (wire type ${kind})`);
    const size = length < 0 ? varint() : length;
    yield [Math.floor(tag / 8), data.subarray(place, (place += size))];
  }
}
