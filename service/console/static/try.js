// "Try it": an input, answered as the server serves it (or at a level) and beside that by the dense model.
import { made } from "./made.js";
import { infer, metadata } from "./server.js";
import { percent } from "./strings.js";
import { createChatInput } from "./try_chat.js";
import { createImageInput } from "./try_image.js";
import { createSpeechInput } from "./try_speech.js";
import { createTextInput } from "./try_text.js";

const element = (id) => document.getElementById(id);
// For comparison: not what an SLO, or the queue of the moment, would make of it.
const WIDE = { slo_ms: 30_000 };

const compute = ({ compute_ms }) => compute_ms;

function card(title, answer, kind, t) {
  if (answer.error) return made("div", {}, [made("h3", { textContent: title }), made("p", { className: "facts bad", textContent: answer.error })]);
  const { reply } = answer;
  // An answer that is still being made says nothing of itself yet.
  if (!reply.parameters) return made("div", {}, [made("h3", { textContent: title }), ...kind.show(reply, t)]);
  const { level, compute_ms, macs_skipped } = reply.parameters;
  const facts = kind.facts?.(reply, t) ?? t("facts", { ms: compute_ms.toFixed(2), skipped: percent(macs_skipped, 0) });
  return made("div", {}, [
    made("h3", { textContent: `${title} · ${t("level").toLowerCase()} ${level.toFixed(2)}` }),
    ...kind.show(reply, t),
    made("p", { className: "facts", textContent: facts }),
  ]);
}

// `answered` is called after each try, when the server knows the channels of the last input.
export function createTry(modelName, translate, answered) {
  const kinds = [createImageInput, createTextInput, createChatInput, createSpeechInput].map((create) => create(translate, () => run(true)));
  let kind = null, served = null, dense = null, running = false, again = false, fresh = false;

  // `told` hears of an answer that comes bit by bit.
  async function ask(parameters, told) {
    const call = kind.ask ?? ((name, given) => infer(name, kind.request(), given));
    try {
      return { reply: await call(modelName(), parameters, (reply) => { told({ reply }); render(); }) };
    } catch (error) {
      return { error: error.message };
    }
  }

  // `changed`: the input is another than before, not only the level.
  async function run(changed) {
    fresh ||= changed;
    if (running) { again = true; return; }
    running = true;
    do {
      again = false;
      const wide = kind.wide ?? WIDE;
      if (fresh || !dense) { fresh = false; dense = await ask({ level: 0, ...wide }, (part) => { dense = part; }); }
      served = await ask(element("follow").checked ? {} : { level: Number(element("try-level").value), ...wide }, (part) => { served = part; });
    } while (again);
    running = false;
    render();
    answered();
  }

  function verdict(t) {
    if (!served?.reply?.parameters || !dense?.reply?.parameters) return "";
    const times = (kind.speed ?? compute)(dense.reply.parameters) / (kind.speed ?? compute)(served.reply.parameters);
    return t("try-verdict", { same: kind.compare(served.reply, dense.reply, t), times: times.toFixed(1) });
  }

  function render() {
    const t = translate();
    for (const one of kinds) one.relabel(t);
    // While it follows, the slider stands where the answer was made.
    if (element("follow").checked && served?.reply?.parameters) element("try-level").value = served.reply.parameters.level;
    element("try-level-value").textContent = Number(element("try-level").value).toFixed(2);
    if (!served && !dense) return;
    element("answers").replaceChildren(...[[t("served"), served], [t("dense"), dense]].map(([title, answer]) =>
      answer ? card(title, answer, kind, t) : made("div")));
    element("try-verdict").textContent = verdict(t);
  }

  element("follow").addEventListener("change", () => { element("try-level").disabled = element("follow").checked; if (served) run(false); });
  element("try-level").addEventListener("input", () => { render(); if (served) run(false); });

  return {
    render,
    // Shows the inputs that the chosen model takes, or nothing of this where they are of a kind unknown here.
    async offer() {
      const described = await metadata(modelName());
      served = dense = null;
      element("answers").replaceChildren();
      element("try-verdict").textContent = "";
      kind = kinds.find((one) => one.fits(described)) ?? null;
      for (const one of kinds) one.place.hidden = one !== kind;
      element("try").hidden = kind === null;
      await kind?.offer(modelName(), described);
      render();
    },
  };
}
