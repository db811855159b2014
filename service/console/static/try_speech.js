// A clip to try on a model of speech: picked, or recorded here. The browser decodes it, so whatever it plays will do.
import { made } from "./made.js";
import { inferBinary } from "./server.js";

const element = (id) => document.getElementById(id);
const RATE = 16_000;
const LONGEST_SECONDS = 30;
const COLUMNS = 240;

// A file's sound as the model takes it: one channel at 16 kHz.
async function decoded(blob) {
  const context = new OfflineAudioContext(1, 1, RATE);
  const sound = await context.decodeAudioData(await blob.arrayBuffer());
  const length = Math.min(sound.length, LONGEST_SECONDS * RATE);
  const mixed = new Float32Array(length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    sound.getChannelData(channel).subarray(0, length).forEach((value, i) => { mixed[i] += value / sound.numberOfChannels; });
  }
  return mixed;
}

function draw(canvas, samples) {
  const pen = canvas.getContext("2d"), step = samples.length / COLUMNS;
  canvas.width = COLUMNS;
  pen.fillStyle = getComputedStyle(canvas).color;
  for (let column = 0; column < COLUMNS; column++) {
    const part = samples.subarray(Math.floor(column * step), Math.floor((column + 1) * step));
    const height = Math.max(1, canvas.height * part.reduce((most, value) => Math.max(most, Math.abs(value)), 0));
    pen.fillRect(column, (canvas.height - height) / 2, 0.7, height);
  }
}

export function createSpeechInput(translate, changed) {
  const file = element("clip"), record = element("record"), wave = element("wave"), note = element("clip-note");
  let samples = null, recorder = null, problem = "";

  async function take(blob) {
    try {
      samples = await decoded(blob);
      problem = "";
      draw(wave, samples);
      changed();
    } catch {
      problem = "clip-unreadable";
    }
    relabel(translate());
  }

  async function start() {
    try {
      const microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
      const parts = [], mine = recorder = new MediaRecorder(microphone);
      recorder.addEventListener("dataavailable", ({ data }) => parts.push(data));
      recorder.addEventListener("stop", () => {
        microphone.getTracks().forEach((track) => track.stop());
        recorder = null;
        take(new Blob(parts));
      });
      recorder.start();
      setTimeout(() => { if (mine.state === "recording") mine.stop(); }, 1000 * LONGEST_SECONDS);
    } catch {
      problem = "no-microphone";
    }
    relabel(translate());
  }

  function relabel(t) {
    record.textContent = t(recorder ? "record-stop" : "record");
    record.setAttribute("aria-pressed", recorder !== null);
    wave.setAttribute("aria-label", t("wave"));
    note.textContent = problem ? t(problem) : samples ? t("clip-length", { seconds: (samples.length / RATE).toFixed(1) }) : "";
    note.classList.toggle("bad", problem !== "");
  }

  file.addEventListener("change", () => { if (file.files.length) take(file.files[0]); });
  record.addEventListener("click", () => (recorder ? recorder.stop() : start()));
  // Browsers lend the microphone to pages of this machine and to HTTPS only.
  record.hidden = !navigator.mediaDevices || !("MediaRecorder" in window);

  return {
    place: element("try-speech"),
    // Samples in, a text out.
    fits: ({ inputs, outputs }) => inputs[0].name === "audio" && inputs[0].datatype === "FP32" && outputs[0].name === "text",
    async offer() {},
    relabel,
    ask: (name, parameters) => inferBinary(name, {
      inputs: [{ name: "audio", datatype: "FP32", shape: [samples.length], parameters: { binary_data_size: samples.byteLength } }],
      outputs: [{ name: "text" }],
      parameters,
    }, samples),
    show: (reply) => [made("p", { className: "said", textContent: reply.outputs[0].data[0] })],
    compare: (served, dense, t) => t(served.outputs[0].data[0] === dense.outputs[0].data[0] ? "same-text" : "other-text"),
  };
}
