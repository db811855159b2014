// The network as a picture: a block of squares for each layer, lit where the channel was computed.
import { made } from "./made.js";
import { percent } from "./strings.js";

const ROWS = 16;
const SVG = "http://www.w3.org/2000/svg";

function drawn(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function block({ name, channels }) {
  const columns = Math.ceil(channels / ROWS);
  const picture = drawn("svg", { viewBox: `0 0 ${columns} ${ROWS}`, "aria-hidden": "true" });
  picture.style.setProperty("--columns", columns);
  const cells = Array.from({ length: channels }, (_, channel) =>
    drawn("rect", { x: Math.floor(channel / ROWS), y: channel % ROWS, width: 0.84, height: 0.84, rx: 0.18 }));
  picture.append(...cells);
  const count = made("figcaption");
  const figure = made("figure", {}, [made("b", { textContent: name }), picture, count]);
  return { figure, cells, count };
}

// A layer that does not tell which of its channels were active: the share that was, of late.
function share({ name }) {
  const fill = made("i"), count = made("figcaption");
  const figure = made("figure", { className: "share" }, [made("b", { textContent: name }), made("div", { className: "meter" }, [fill]), count]);
  return { figure, fill, count };
}

export function createNetwork(place) {
  let shape = "", drawings = [];
  return (layers, t) => {
    const wanted = layers.map(({ name, channels, active }) => `${name}:${active ? channels : ""}`).join();
    if (wanted !== shape || !layers.length) {
      drawings = layers.map((layer) => (layer.active ? block(layer) : share(layer)));
      place.replaceChildren(...drawings.map(({ figure }) => figure));
      shape = wanted;
    }
    if (!layers.length) place.textContent = t("network-empty");
    layers.forEach(({ channels, active, skip_rate }, i) => {
      const { cells, fill, count } = drawings[i];
      if (!active) {
        const computed = skip_rate === null ? null : 1 - skip_rate;
        fill.style.width = `${100 * (computed ?? 0)}%`;
        count.textContent = t("computed", { share: percent(computed, 0) });
        return;
      }
      const lit = new Set(active);
      cells.forEach((cell, channel) => cell.classList.toggle("on", lit.has(channel)));
      count.textContent = t("active", { active: active.length, channels });
    });
  };
}
