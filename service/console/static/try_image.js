// An image to try: picked among samples, or drawn.
import { made, meter } from "./made.js";
import { samples } from "./server.js";
import { percent } from "./strings.js";

const element = (id) => document.getElementById(id);
const LIKELIEST = 3;

function paint(canvas, pixels) {
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  pixels.forEach((grey, i) => image.data.set([grey, grey, grey, 255], 4 * i));
  context.putImageData(image, 0, 0);
}

// The classes of a reply as {label, share}, the likeliest first.
const classes = (reply) => reply.outputs[0].data.map((text) => text.split(":")).map(([share, , label]) => ({ label, share: Number(share) }));

export function createImageInput(translate, changed) {
  const drawing = element("drawing");
  let width = 0, height = 0, pixels = new Uint8Array(), input = "", output = "";

  function choose(chosen, button) {
    pixels = chosen.slice();
    paint(drawing, pixels);
    for (const other of element("samples").children) other.setAttribute("aria-pressed", other === button);
    changed();
  }

  function stroke(event) {
    const box = drawing.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * width, y = ((event.clientY - box.top) / box.height) * height;
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const ink = 255 * Math.max(0, 1.6 - Math.hypot(column + 0.5 - x, row + 0.5 - y));
        if (ink > 0) pixels[row * width + column] = Math.min(255, Math.max(pixels[row * width + column], ink));
      }
    }
    paint(drawing, pixels);
  }
  drawing.addEventListener("pointerdown", (event) => { drawing.setPointerCapture(event.pointerId); stroke(event); });
  drawing.addEventListener("pointermove", (event) => { if (event.buttons) stroke(event); });
  drawing.addEventListener("pointerup", changed);
  element("clear").addEventListener("click", () => choose(new Uint8Array(width * height), null));

  function thumbnail({ label, pixels: encoded }) {
    const grey = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
    const picture = made("canvas", { width, height });
    paint(picture, grey);
    const button = made("button", { type: "button", title: label }, [picture]);
    button.setAttribute("aria-label", label);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => choose(grey, button));
    return button;
  }

  return {
    place: element("try-image"),
    // One grey image of bytes in, classes out.
    fits: ({ inputs }) => inputs.length === 1 && inputs[0].datatype === "UINT8" && inputs[0].shape.length === 3,
    async offer(name, { inputs, outputs }) {
      [, height, width] = inputs[0].shape;
      [input, output] = [inputs[0].name, outputs[0].name];
      [drawing.width, drawing.height, pixels] = [width, height, new Uint8Array(width * height)];
      paint(drawing, pixels);
      element("samples").replaceChildren(...(await samples(name)).map(thumbnail));
    },
    relabel(t) { drawing.setAttribute("aria-label", t("drawing", { width, height })); },
    request: () => ({
      inputs: [{ name: input, datatype: "UINT8", shape: [1, height, width], data: Array.from(pixels) }],
      outputs: [{ name: output, parameters: { classification: LIKELIEST } }],
    }),
    show: (reply) => [
      made("p", { className: "label", textContent: classes(reply)[0].label }),
      ...classes(reply).map(({ label, share }) =>
        made("div", { className: "bar" }, [made("span", { textContent: label }), meter(share), made("b", { textContent: percent(share, 0) })])),
    ],
    compare: (served, dense, t) => t(classes(served)[0].label === classes(dense)[0].label ? "same-answer" : "other-answer"),
  };
}
