// The SLO and the quality floor: a number and a slider for the same value, sent as soon as it is let go.
import { changeSlo } from "./server.js";
import { hasTokens, latencyName, latencyOf } from "./slo.js";

const element = (id) => document.getElementById(id);
const toSlider = (ms) => Math.round(100 * Math.log10(ms)), fromSlider = (position) => Number((10 ** (position / 100)).toPrecision(2));

// `changed` hears of the SLO that the server put in force.
export function createControls(modelName, translate, changed) {
  const fields = [...element("controls").querySelectorAll("input:not([type=password])")];
  const note = element("controls-note");
  let editing = false, latency = "latency_ms";

  function show(slo) {
    if (editing) return;
    latency = latencyName(slo);
    const label = element("latency-label");
    label.dataset.t = hasTokens(slo) ? "first-token" : "latency";
    label.textContent = translate()(label.dataset.t);
    element("pace-field").hidden = !hasTokens(slo);
    // A thousand milliseconds are enough for most models, and not for a long prompt.
    element("latency-slider").max = hasTokens(slo) ? 450 : 300;
    element("latency").value = latencyOf(slo);
    element("latency-slider").value = toSlider(latencyOf(slo));
    if (hasTokens(slo)) {
      element("pace").value = slo.token_ms;
      element("pace-slider").value = toSlider(slo.token_ms);
      element("pace-slider").setAttribute("aria-valuetext", `${slo.token_ms} ms`);
    }
    element("floor").value = Number((100 * slo.quality_floor).toFixed(3));
    element("floor-slider").value = 100 * slo.quality_floor;
    element("percentile").value = slo.percentile;
    element("shed").checked = slo.shed;
    element("latency-slider").setAttribute("aria-valuetext", `${latencyOf(slo)} ms`);
    element("floor-slider").setAttribute("aria-valuetext", `${100 * slo.quality_floor} %`);
  }

  function say(text, bad) {
    note.textContent = text;
    note.classList.toggle("bad", bad);
  }

  async function send(changes) {
    try {
      const slo = await changeSlo(modelName(), changes, element("token").value);
      editing = false;
      show(slo);
      say(translate()("saved"), false);
      changed(slo);
    } catch (error) {
      editing = false;
      const token = error.status === 401 || error.status === 403;
      element("token-field").hidden &&= !token;
      say(token ? translate()("token-needed") : error.message, true);
    }
  }

  const pairs = {
    latency: ["latency-slider", (v) => toSlider(v), fromSlider, (v) => ({ [latency]: v })],
    pace: ["pace-slider", (v) => toSlider(v), fromSlider, (v) => ({ token_ms: v })],
    floor: ["floor-slider", (v) => v, Number, (v) => ({ quality_floor: Number((v / 100).toFixed(6)) })],
  };
  for (const [id, [slider, up, down, change]] of Object.entries(pairs)) {
    element(slider).addEventListener("input", () => { element(id).value = down(element(slider).value); });
    element(id).addEventListener("input", () => { if (element(id).value > 0) element(slider).value = up(Number(element(id).value)); });
    for (const source of [element(id), element(slider)]) source.addEventListener("change", () => send(change(Number(element(id).value))));
  }
  element("percentile").addEventListener("change", () => send({ percentile: Number(element("percentile").value) }));
  element("shed").addEventListener("change", () => send({ shed: element("shed").checked }));
  for (const field of fields) field.addEventListener("input", () => { editing = true; });
  for (const field of fields) field.addEventListener("blur", () => { editing = false; });
  element("controls").addEventListener("submit", (event) => event.preventDefault());
  return { show, say };
}
