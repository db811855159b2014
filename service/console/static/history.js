// What the page remembers of the last two minutes; the server keeps no history for it.
export const SECONDS = 120;
const OUTCOMES = ["ok", "refused", "expired", "cancelled", "error"];

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

    latencies: (now) => states.flatMap((state) =>
      ["50", "95", "99"].filter((p) => p in state.tail_ms).map((p) => ({ t: (state.at - now) / 1000, series: `p${p}`, value: state.tail_ms[p] }))),
    limits: (now) => states.map((state) => ({ t: (state.at - now) / 1000, value: state.slo.latency_ms })),
    levels: (now) => states.map((state) => ({ t: (state.at - now) / 1000, level: state.level, highest: state.highest_level })),
    rates: (now) => states.slice(1).flatMap((state, i) => {
      const before = states[i], seconds = (state.at - before.at) / 1000;
      return OUTCOMES.map((outcome) => ({
        t: (state.at - now) / 1000, outcome, rate: Math.max(0, state.totals[outcome] - before.totals[outcome]) / seconds,
      }));
    }),
  };
}
