// "Try it": one image, answered as the server serves it (or at a level) and beside that by the dense model.
import { classify, samples } from "./server.js";
import { percent } from "./strings.js";

const SIDE = 28;
const element = (id) => document.getElementById(id);

function paint(canvas, pixels) {
  const context = canvas.getContext("2d"), image = context.createImageData(SIDE, SIDE);
  pixels.forEach((grey, i) => image.data.set([grey, grey, grey, 255], 4 * i));
  context.putImageData(image, 0, 0);
}

function made(name, properties = {}, children = []) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

function answer(title, { classes, parameters }, t) {
  const bars = classes.slice(0, 3).map(({ label, share }) => {
    const fill = made("i");
    fill.style.width = `${100 * share}%`;
    return made("div", { className: "bar" }, [made("span", { textContent: label }), made("div", { className: "meter" }, [fill]), made("b", { textContent: percent(share, 0) })]);
  });
  const facts = t("facts", { ms: parameters.compute_ms.toFixed(2), skipped: percent(parameters.macs_skipped, 0) });
  return made("div", {}, [
    made("h3", { textContent: `${title} · ${t("level").toLowerCase()} ${parameters.level.toFixed(2)}` }),
    made("p", { className: "label", textContent: classes[0].label }), ...bars, made("p", { className: "facts", textContent: facts }),
  ]);
}

// `answered` is called after each try, when the server knows the channels of the last image.
export function createTry(modelName, translate, answered) {
  const drawing = element("drawing");
  let pixels = new Uint8Array(SIDE * SIDE), last = null, running = false, again = false;

  async function run() {
    if (running) { again = true; return; }
    running = true;
    try {
      const dense = await classify(modelName(), pixels, 0);
      const level = element("follow").checked ? null : Number(element("try-level").value);
      last = { dense, served: await classify(modelName(), pixels, level) };
      render();
      answered();
    } catch (error) {
      element("answers").replaceChildren(made("p", { className: "facts", textContent: error.message }));
    }
    running = false;
    if (again) { again = false; run(); }
  }

  function render() {
    const t = translate();
    drawing.setAttribute("aria-label", t("drawing"));
    element("try-level-value").textContent = Number(element("try-level").value).toFixed(2);
    if (last) element("answers").replaceChildren(answer(t("served"), last.served, t), answer(t("dense"), last.dense, t));
  }

  function choose(chosen, button) {
    pixels = chosen.slice();
    paint(drawing, pixels);
    for (const other of element("samples").children) other.setAttribute("aria-pressed", other === button);
    run();
  }

  function stroke(event) {
    const box = drawing.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * SIDE, y = ((event.clientY - box.top) / box.height) * SIDE;
    for (let row = 0; row < SIDE; row++) {
      for (let column = 0; column < SIDE; column++) {
        const ink = 255 * Math.max(0, 1.6 - Math.hypot(column + 0.5 - x, row + 0.5 - y));
        if (ink > 0) pixels[row * SIDE + column] = Math.min(255, Math.max(pixels[row * SIDE + column], ink));
      }
    }
    paint(drawing, pixels);
  }
  drawing.addEventListener("pointerdown", (event) => { drawing.setPointerCapture(event.pointerId); stroke(event); });
  drawing.addEventListener("pointermove", (event) => { if (event.buttons) stroke(event); });
  drawing.addEventListener("pointerup", run);
  element("clear").addEventListener("click", () => choose(new Uint8Array(SIDE * SIDE), null));
  element("follow").addEventListener("change", () => { element("try-level").disabled = element("follow").checked; run(); });
  element("try-level").addEventListener("input", () => { render(); run(); });

  return {
    render,
    // Shows the part for a model that there are sample images for.
    async offer() {
      const images = await samples(modelName());
      element("try").hidden = !images.length;
      element("samples").replaceChildren(...images.map(({ label, pixels: encoded }) => {
        const grey = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
        const thumbnail = made("canvas", { width: SIDE, height: SIDE });
        paint(thumbnail, grey);
        const button = made("button", { type: "button", title: label }, [thumbnail]);
        button.setAttribute("aria-label", label);
        button.setAttribute("aria-pressed", "false");
        button.addEventListener("click", () => choose(grey, button));
        return button;
      }));
      paint(drawing, pixels);
    },
  };
}
