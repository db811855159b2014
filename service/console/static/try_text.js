// Two texts to try on a model that embeds them: how alike they are.
import { made, meter } from "./made.js";

const element = (id) => document.getElementById(id);
const TYPING_MS = 350;
const EXAMPLES = [1, 2, 3];

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
const cosine = (a, b) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b) || 1);

// The embeddings of a reply, one for each text.
function vectors(reply) {
  const { data, shape: [count, length] } = reply.outputs[0];
  return Array.from({ length: count }, (_, i) => data.slice(i * length, (i + 1) * length));
}

export function createTextInput(translate, changed) {
  const fields = [element("text-one"), element("text-two")];
  let input = "", output = "", typing = 0;

  for (const field of fields) {
    field.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(changed, TYPING_MS);
    });
  }

  function example(number) {
    const button = made("button", { type: "button" });
    button.addEventListener("click", () => {
      fields.forEach((field, i) => { field.value = translate()(`example-${number}-${i + 1}`); });
      changed();
    });
    return button;
  }
  element("examples").replaceChildren(...EXAMPLES.map(example));

  return {
    place: element("try-text"),
    // Texts in, a vector for each out.
    fits: ({ inputs, outputs }) =>
      inputs.length === 1 && inputs[0].datatype === "BYTES" && inputs[0].shape.length === 1 && outputs[0].datatype === "FP32" && outputs[0].shape.length === 2,
    async offer(name, { inputs, outputs }) { [input, output] = [inputs[0].name, outputs[0].name]; },
    relabel(t) { [...element("examples").children].forEach((button, i) => { button.textContent = t("example", { number: EXAMPLES[i] }); }); },
    request: () => ({
      inputs: [{ name: input, datatype: "BYTES", shape: [2], data: fields.map((field) => field.value) }],
      outputs: [{ name: output }],
    }),
    show(reply, t) {
      const similarity = cosine(...vectors(reply));
      return [made("p", { className: "label", textContent: t("similarity", { value: similarity.toFixed(3) }) }), meter(similarity)];
    },
    compare(served, dense, t) {
      const reference = vectors(dense), agreement = vectors(served).map((vector, i) => cosine(vector, reference[i]));
      return t("embedding-agreement", { value: Math.min(...agreement).toFixed(3) });
    },
  };
}
