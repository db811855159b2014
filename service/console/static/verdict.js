// The one glance: is the SLO met, what does it cost, and why.
import { STRIP } from "./history.js";
import { allowed, hasTokens, latencyOf } from "./slo.js";
import { limit, milliseconds, percent } from "./strings.js";

const element = (id) => document.getElementById(id);

function bar(id, share, bad = false) {
  element(id).style.width = `${Math.min(100, Math.max(0, 100 * (share ?? 0)))}%`;
  element(id).classList.toggle("bad", bad);
}

function judge(state, attainment) {
  if (!state.slo_attainable) return "impossible";
  if (attainment === null) return "idle";
  return 100 * attainment >= state.slo.percentile ? "met" : "missed";
}

// What bounds the level, in the page's language; the server says it in English.
const BOUNDS = { "quality floor": "bound-floor", "the profile": "bound-profile", "live agreement": "bound-live" };

function bound(state, t) {
  const known = Object.keys(BOUNDS).find((start) => state.highest_reason.startsWith(start));
  return known ? t(BOUNDS[known], { floor: percent(state.slo.quality_floor), live: percent(state.live_agreement) }) : state.highest_reason;
}

function reason(state, verdict, t) {
  const values = {
    level: state.level.toFixed(2), highest: state.highest_level.toFixed(2), skipped: percent(state.macs_skipped, 0),
    limit: allowed(state.slo, t), reason: bound(state, t),
  };
  if (verdict === "impossible") return t("why-impossible", values);
  if (state.level < 0.005 || state.macs_skipped === null) return t("why-full");
  return t(state.level >= state.highest_level - 0.01 ? "why-ceiling" : "why-level", values);
}

export function showVerdict(state, attainment, t) {
  const verdict = judge(state, attainment), { slo } = state;
  const texts = { share: percent(attainment), limit: allowed(slo, t) };
  element("verdict").dataset.state = { met: "met", idle: "idle", missed: "missed", impossible: "tight" }[verdict];
  write("verdict-title", t(verdict, texts));
  write("verdict-why", reason(state, verdict, t));

  const shown = ["50", "95", "99", "99.9"].find((p) => Number(p) >= slo.percentile) ?? "99.9", tail = state.tail_ms[shown];
  write("tail-name", t(hasTokens(slo) ? "tail-first" : "tail", { percentile: shown }));
  write("tail", milliseconds(tail));
  write("tail-note", t("tail-note", { limit: limit(latencyOf(slo)), median: milliseconds(state.tail_ms["50"]) }));
  bar("tail-bar", tail / latencyOf(slo) || 0, tail > latencyOf(slo));

  const live = state.live_agreement;
  write("quality", percent(state.expected_quality, 2));
  write("quality-note", t(live === null ? "quality-note" : "quality-live", { floor: percent(slo.quality_floor), live: percent(live), samples: state.live_samples }));
  bar("quality-bar", (state.expected_quality - slo.quality_floor) / (1 - slo.quality_floor) || 0, state.expected_quality < slo.quality_floor);

  write("skipped", percent(state.macs_skipped, 0));
  write("skipped-note", t("skipped-note", { level: state.level.toFixed(2), highest: state.highest_level.toFixed(2) }));
  bar("skipped-bar", state.macs_skipped);
}

// A stroke for each of the last seconds: was the SLO met in it?
export function showStrip(shares, slo) {
  const strip = element("strip");
  while (strip.children.length < STRIP) strip.append(document.createElement("i"));
  const cells = [...strip.children], first = STRIP - shares.length;
  cells.forEach((cell, i) => {
    const share = i < first ? null : shares[i - first];
    cell.className = share === null ? "" : 100 * share >= slo.percentile ? "good" : share >= 0.9 ? "warn" : "bad";
  });
}

// A screen reader repeats a status whose text is set again, even to the same.
function write(id, text) {
  if (element(id).textContent !== text) element(id).textContent = text;
}
