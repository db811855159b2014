// The charts: Vega-Lite specifications in the page's colours, run by Vega's interpreter, which needs no eval.
import { SECONDS } from "./history.js";

const HEIGHT = 190;
const axis = (title) => ({ title, titleFontWeight: "normal" });
const time = (t) => ({ field: "t", type: "quantitative", axis: { ...axis(t("seconds")), format: "d", labelExpr: "abs(datum.value)", tickCount: 6, grid: false }, scale: { domainMin: { expr: "-span" }, domainMax: 0, nice: false, zero: false } });
const value = (field, extra = {}) => ({ field, type: "quantitative", axis: { title: null, tickCount: 4 }, ...extra });
const legend = { title: null, orient: "top", symbolType: "stroke", offset: 4 };

function latency(t, c) {
  return { layer: [
    { data: { name: "rows" }, mark: { type: "line", strokeWidth: 1.8, clip: true }, encoding: {
      x: time(t), y: value("value"),
      color: { field: "series", legend, scale: { domain: ["p50", "p95", "p99", t("slo")], range: [c.quiet, c.middle, c.accent, c.bad] } },
    } },
    { data: { name: "limits" }, mark: { type: "line", strokeWidth: 1.5, strokeDash: [5, 4], clip: true, color: c.bad },
      encoding: { x: time(t), y: value("value") } },
  ] };
}

function level(t, c) {
  const y = (field) => value(field, { scale: { domain: [0, 1] } });
  return { data: { name: "rows" }, layer: [
    { mark: { type: "line", strokeDash: [5, 4], strokeWidth: 1.5, color: c.soft, clip: true }, encoding: { x: time(t), y: y("highest") } },
    { mark: { type: "area", line: { color: c.accent, strokeWidth: 1.8 }, color: c.accent, fillOpacity: 0.18, clip: true }, encoding: { x: time(t), y: y("level") } },
  ] };
}

function outcomes(t, c) {
  const order = ["ok", "refused", "expired", "cancelled", "invalid", "error"];
  return { data: { name: "rows" }, mark: { type: "area", clip: true }, encoding: {
    x: time(t), y: value("rate", { stack: "zero" }), order: { field: "rank" },
    color: { field: "outcome", scale: { domain: order, range: [c.accent, c.warn, c.bad, c.soft, c.line, c.text] },
      legend: { ...legend, symbolType: "square", columns: 3, labelExpr: JSON.stringify(Object.fromEntries(order.map((o) => [o, t(o)]))) + "[datum.value]" } },
  }, transform: [{ calculate: `indexof(${JSON.stringify(order)}, datum.outcome)`, as: "rank" }] };
}

function queue(t, c) {
  return { data: { name: "rows" }, mark: { type: "area", line: { strokeWidth: 1.6 }, fillOpacity: 0.18, clip: true }, encoding: {
    x: time(t), y: value("count", { stack: null, axis: { title: null, tickCount: 4, tickMinStep: 1 }, scale: { domainMin: 0, nice: true } }),
    color: { field: "series", legend: { ...legend, symbolType: "square" }, scale: { domain: [t("waiting"), t("running")], range: [c.warn, c.accent] } },
  } };
}

function profile(t, c) {
  const x = (field) => ({ field, type: "quantitative", axis: { ...axis(t("work")), format: ".0%", grid: false, tickCount: 5 }, scale: { domain: [0, 1], reverse: true } });
  const y = (field) => value(field, { axis: { title: null, format: ".1%", tickCount: 4 }, scale: { zero: false, nice: true } });
  return { layer: [
    { data: { name: "rows" }, mark: { type: "line", point: { size: 28, filled: true, color: c.accent }, color: c.accent, strokeWidth: 1.8, tooltip: true },
      encoding: { x: x("macs_ratio"), y: y("agreement"), tooltip: [
        { field: "level", title: t("level"), format: ".2f" }, { field: "macs_ratio", title: t("work"), format: ".1%" },
        { field: "agreement", title: t("agreement"), format: ".2%" }] } },
    { data: { name: "floor" }, mark: { type: "rule", strokeDash: [5, 4], color: c.bad, clip: true }, encoding: { y: y("value") } },
    { data: { name: "point" }, mark: { type: "point", filled: true, size: 160, color: c.text, stroke: c.card, strokeWidth: 2, opacity: 1 },
      encoding: { x: x("macs_ratio"), y: y("agreement") } },
  ] };
}

function colours() {
  const style = getComputedStyle(document.documentElement), read = (name) => style.getPropertyValue(`--${name}`).trim();
  return { accent: read("accent"), soft: read("soft"), text: read("text"), line: read("line"), card: read("card"), bad: read("bad"), warn: read("warn"), middle: read("middle"), quiet: read("soft") };
}

const config = (c) => ({
  background: null, view: { stroke: null }, font: "system-ui, sans-serif",
  axis: { labelColor: c.soft, titleColor: c.soft, gridColor: c.line, domainColor: c.line, tickColor: c.line, labelFontSize: 11, titleFontSize: 11 },
  legend: { labelColor: c.soft, labelFontSize: 11, columns: innerWidth < 640 ? 3 : 0 },
});

const SPECIFICATIONS = {
  latency: [latency, ["rows", "limits"]], level: [level, ["rows"]], outcomes: [outcomes, ["rows"]], queue: [queue, ["rows"]], profile: [profile, ["rows", "floor", "point"]],
};

// Draws all charts anew; the result replaces the data of one of them. Null where the library is not installed.
export async function drawCharts(t) {
  if (!globalThis.vegaEmbed) return null;
  const c = colours(), views = {};
  for (const [name, [specification, tables]] of Object.entries(SPECIFICATIONS)) {
    const place = document.getElementById(`chart-${name}`);
    const spec = { width: "container", height: HEIGHT, autosize: { type: "fit", contains: "padding", resize: true }, config: config(c), params: [{ name: "span", value: SECONDS }], datasets: Object.fromEntries(tables.map((table) => [table, []])), ...specification(t, c) };
    views[name] = (await vegaEmbed(place, spec, { ast: true, actions: false, defaultStyle: false, renderer: "canvas", logLevel: vega.Error, tooltip: { disableDefaultStyle: true } })).view;
  }
  return (name, tables, span = SECONDS) => {
    views[name].signal("span", span);
    for (const [table, rows] of Object.entries(tables)) views[name].data(table, rows);
    views[name].runAsync();
  };
}
