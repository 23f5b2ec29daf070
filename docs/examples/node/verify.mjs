// Runs a model file in onnxruntime-node and checks it with the pictures that it carries.
//
//   npm install
//   node verify.mjs model.onnx
//
// Labels, preprocessing, temperature and pictures come out of the file. The pictures begin at their stored crops: whoever
// decodes and resizes images in Node has to do it as docs/file-format.md says, or the answers will differ. The exit
// status is 0 where the answers are the reference's.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import ort from "onnxruntime-node";
import { readModel, toInput, toProbabilities } from "./model_file.mjs";
import { decodePng } from "./png.mjs";

// As `vit-edge verify` has them: how many times the drift that the file had when it was made passes, and the least.
const MARGIN = 1.5;
const FLOOR = 0.005;

async function main(path) {
  const data = readFileSync(path);
  const model = readModel(data);
  const capsule = model.capsule();
  const { resize, crop, interpolation } = model.preprocess;
  console.log(`${model.labels.length} labels; resize ${resize}, crop ${crop.join("x")}, ${interpolation}`);
  if (capsule === undefined) throw new Error("the file carries no capsule; export it anew");

  const session = await ort.InferenceSession.create(data);
  const type = session.inputMetadata[0].type;
  const drifts = [];
  const limit = Math.max(MARGIN * capsule.measured.drift, FLOOR);
  let wrong = 0;
  for (const picture of capsule.pictures) {
    const pixels = readCrop(picture);
    const logits = (await answer(session, toInput(pixels, model.preprocess, type))).slice(0, model.labels.length);
    const reference = readFloats(picture.logits);
    const drift = relativeDrift(reference, logits);
    drifts.push(drift);
    const [first, expected] = [indexOfMax(logits), indexOfMax(reference)];
    if (first !== expected && margin(reference) > movement(capsule.measured, limit, reference)) wrong++;
    const probability = toProbabilities(logits, model.scores)[first];
    console.log(
      `${picture.name}: ${model.labels[first]} ${(100 * probability).toFixed(1)} %` +
        `${first === expected ? "" : `, the reference says ${model.labels[expected]}`}, drift ${drift.toFixed(4)}`,
    );
  }
  const mean = drifts.reduce((sum, drift) => sum + drift, 0) / drifts.length;
  const passed = wrong === 0 && mean <= limit;
  console.log(`drift ${mean.toFixed(4)}, at most ${limit.toFixed(4)} passes: ${passed ? "passed" : "FAILED"}`);
  process.exitCode = passed ? 0 : 1;
}

/** Runs the graph on one image; one of a fixed batch gets as many copies as it wants. */
async function answer(session, { data, dims }) {
  const [batch] = session.inputMetadata[0].shape;
  const count = typeof batch === "number" ? batch : 1;
  const filled = new data.constructor(count * data.length);
  for (let place = 0; place < count; place++) filled.set(data, place * data.length);
  const tensor = new ort.Tensor(session.inputMetadata[0].type, filled, [count, ...dims.slice(1)]);
  const output = await session.run({ [session.inputNames[0]]: tensor });
  return output[session.outputNames[0]].data;
}

/** The margin, in logits, up to which a drift that passes may change the first answer. */
function movement(measured, limit, reference) {
  if (measured.drift > 0) return (measured.max_abs_drift * limit) / measured.drift;
  return (3 * limit * spread(reference)) / Math.sqrt(reference.length);
}

function readCrop(picture) {
  const { pixels } = decodePng(Buffer.from(picture.crop.png, "base64"));
  const found = createHash("sha256").update(pixels).digest("hex");
  if (found !== picture.crop.sha256) throw new Error(`the crop of ${picture.name} is decoded wrongly here`);
  return pixels;
}

function readFloats(text) {
  const bytes = Buffer.from(text, "base64");
  return Float32Array.from({ length: bytes.length / 4 }, (_, place) => bytes.readFloatLE(4 * place));
}

/** |logits - reference| / |reference - its mean|, Euclidean norms. */
function relativeDrift(reference, logits) {
  return norm(reference.map((value, place) => logits[place] - value)) / spread(reference);
}

function spread(values) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return norm(values.map((value) => value - mean));
}

function norm(values) {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
}

function margin(values) {
  const [best, second] = Array.from(values).sort((a, b) => b - a);
  return best - second;
}

function indexOfMax(values) {
  return values.indexOf(Math.max(...values));
}

main(process.argv[2]).catch((error) => {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
});
