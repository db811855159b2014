// A message to try on a language model: the answer shows as it is made.
import { made } from "./made.js";
import { chat } from "./server.js";
import { limit, percent } from "./strings.js";

const element = (id) => document.getElementById(id);
const MOST_TOKENS = 64;

export function createChatInput(translate, changed) {
  const message = element("message");
  const send = () => { if (message.value.trim()) changed(); };
  element("try-chat").addEventListener("submit", (event) => { event.preventDefault(); send(); });
  message.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
  });

  return {
    place: element("try-chat"),
    wide: { slo_first_token_ms: 60_000, slo_token_ms: 10_000 },
    // A prompt in, a text out.
    fits: ({ inputs, outputs }) => inputs[0].name === "prompt" && outputs[0].name === "text" && outputs[0].datatype === "BYTES",
    async offer() { message.value ||= translate()("message-example"); },
    relabel() {},
    ask: (name, parameters, told) => chat(name, message.value, { max_tokens: MOST_TOKENS, temperature: 0, ...parameters }, told),
    show: (reply) => [made("p", { className: "said", textContent: reply.text })],
    facts: ({ parameters: { first_token_ms, token_ms, macs_skipped } }, t) =>
      t("chat-facts", { first: limit(first_token_ms), token: limit(token_ms ?? 0), skipped: percent(macs_skipped, 0) }),
    // Two texts may differ in length.
    speed: ({ token_ms, first_token_ms }) => token_ms ?? first_token_ms,
    compare: (served, dense, t) => t(served.text === dense.text ? "same-text" : "other-text"),
  };
}
