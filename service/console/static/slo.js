// Of a language model the SLO is two times; of others one latency.
import { limit } from "./strings.js";

export const hasTokens = (slo) => "token_ms" in slo;
export const latencyName = (slo) => (hasTokens(slo) ? "first_token_ms" : "latency_ms");
export const latencyOf = (slo) => slo[latencyName(slo)];

// All that it allows, in words.
export const allowed = (slo, t) =>
  hasTokens(slo) ? t("two-limits", { first: limit(slo.first_token_ms), token: limit(slo.token_ms) }) : limit(slo.latency_ms);
