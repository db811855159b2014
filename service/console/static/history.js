// What the page remembers of the last two minutes; the server keeps no history for it.
import { latencyOf } from "./slo.js";

export const SECONDS = 120;
export const STRIP = 60;
const SHORTEST = 20;
const OUTCOMES = ["ok", "refused", "expired", "cancelled", "invalid", "error"];

export function createHistory() {
  const states = [];
  return {
    add(state, now) {
      states.push({ ...state, at: now });
      while (states[0].at < now - SECONDS * 1000) states.shift();
    },
    clear() { states.length = 0; },

    // The share of the requests of the last ten seconds that were within the SLO; null without any.
    attainment(now) {
      const first = states.find((state) => state.at >= now - 10_500), last = states.at(-1);
      const met = last.totals.met - first.totals.met, judged = met + last.totals.missed - first.totals.missed;
      return judged > 0 ? met / judged : null;
    },

    // Seconds that charts show: what is known so far, up to all of it.
    span: (now) => Math.min(SECONDS, Math.max(SHORTEST, states.length ? (now - states[0].at) / 1000 : 0)),

    // The same share for each of the last `STRIP` looks at the server, null where nothing was judged; the newest last.
    strip: () => states.slice(-STRIP - 1).flatMap((state, i, shown) => {
      if (i === 0) return [];
      const met = state.totals.met - shown[i - 1].totals.met, judged = met + state.totals.missed - shown[i - 1].totals.missed;
      return [judged > 0 ? met / judged : null];
    }),

    latencies: (now) => states.flatMap((state) =>
      ["50", "95", "99"].filter((p) => p in state.tail_ms).map((p) => ({ t: (state.at - now) / 1000, series: `p${p}`, value: state.tail_ms[p] }))),
    limits: (now) => states.map((state) => ({ t: (state.at - now) / 1000, value: latencyOf(state.slo) })),
    levels: (now) => states.map((state) => ({ t: (state.at - now) / 1000, level: state.level, highest: state.highest_level })),
    queue: (now, t) => states.flatMap((state) =>
      [["waiting", state.queue_depth], ["running", state.inflight]].map(([series, count]) => ({ t: (state.at - now) / 1000, series: t(series), count }))),
    rates: (now) => states.slice(1).flatMap((state, i) => {
      const before = states[i], seconds = (state.at - before.at) / 1000;
      return OUTCOMES.map((outcome) => ({
        t: (state.at - now) / 1000, outcome, rate: Math.max(0, state.totals[outcome] - before.totals[outcome]) / seconds,
      }));
    }),
  };
}
