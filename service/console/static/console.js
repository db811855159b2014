// The page, put together: one small call a second while somebody looks at it.
import { drawCharts } from "./charts.js";
import { createControls } from "./controls.js";
import { createHistory } from "./history.js";
import { createNetwork } from "./network.js";
import * as server from "./server.js";
import { preferredLanguage, translator } from "./strings.js";
import { createTry } from "./try.js";
import { showStrip, showVerdict } from "./verdict.js";

const element = (id) => document.getElementById(id);
const root = document.documentElement;
const history = createHistory();
let language = preferredLanguage(), t = translator(language);
let model = null, points = [], draw = null, timer = 0, latest = null;

const showNetwork = createNetwork(element("network"));
const controls = createControls(() => model, () => t, () => refresh());
const trying = createTry(() => model, () => t, () => refresh());

function show(state) {
  const now = Date.now();
  latest = state;
  showVerdict(state, history.attainment(now), t);
  showStrip(history.strip(), state.slo);
  controls.show(state.slo);
  showNetwork(state.layers, t);
  if (!draw) return;
  const span = history.span(now);
  draw("latency", { rows: history.latencies(now), limits: history.limits(now) }, span);
  draw("level", { rows: history.levels(now) }, span);
  draw("outcomes", { rows: history.rates(now) }, span);
  draw("queue", { rows: history.queue(now, t) }, span);
  draw("profile", { rows: points, floor: [{ value: state.slo.quality_floor }], point: [at(state.level)] });
}

// The profile at a level, between its points.
function at(level) {
  const next = Math.max(1, points.findIndex((point) => point.level >= level));
  if (points.length < 2) return points[0];
  const [a, b] = [points[next - 1], points[next]], share = (level - a.level) / (b.level - a.level);
  const mix = (key) => a[key] + share * (b[key] - a[key]);
  return { macs_ratio: mix("macs_ratio"), agreement: mix("agreement") };
}

async function refresh() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    if (!model) await choose((await server.readyModels())[0]);
    const state = await server.state(model);
    history.add(state, Date.now());
    show(state);
    element("offline").hidden = true;
  } catch (error) {
    element("offline").textContent = t("offline", { error: error.message });
    element("offline").hidden = false;
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, 1000);
}

async function choose(name) {
  if (!name) throw new Error(t("none"));
  const names = await server.readyModels();
  element("model").replaceChildren(...names.map((other) => new Option(other, other, false, other === name)));
  history.clear();
  points = (await server.profile(name)).points;
  model = name;
  await trying.offer();
}

async function dress() {
  root.lang = language;
  t = translator(language);
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  element("language").textContent = t("language");
  element("theme").textContent = t(root.dataset.theme === "dark" ? "light" : "dark");
  trying.render();
  draw = await drawCharts(t);
  element("no-charts").hidden = draw !== null;
  if (latest) show(latest);
}

function theme(name) {
  root.dataset.theme = name;
  dress();
}

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const preferredTheme = () => localStorage.getItem("theme") ?? (prefersDark.matches ? "dark" : "light");
prefersDark.addEventListener("change", () => theme(preferredTheme()));
element("theme").addEventListener("click", () => {
  localStorage.setItem("theme", root.dataset.theme === "dark" ? "light" : "dark");
  theme(preferredTheme());
});
element("language").addEventListener("click", () => {
  language = language === "en" ? "zh" : "en";
  localStorage.setItem("language", language);
  dress();
});
element("model").addEventListener("change", async () => {
  await choose(element("model").value);
  refresh();
});
document.addEventListener("visibilitychange", refresh);
root.dataset.theme = preferredTheme();
await dress();
refresh();
