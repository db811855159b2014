// The network as a picture: a block of squares for each layer, lit where the channel was computed.
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
  const title = Object.assign(document.createElement("b"), { textContent: name }), count = document.createElement("figcaption");
  const figure = document.createElement("figure");
  figure.append(title, picture, count);
  return { figure, cells, count };
}

export function createNetwork(place) {
  let shape = "", blocks = [];
  return (layers, t) => {
    const known = layers.filter((layer) => layer.active !== null);
    const wanted = known.map(({ name, channels }) => `${name}:${channels}`).join();
    if (wanted !== shape) {
      blocks = known.map(block);
      place.replaceChildren(...blocks.map(({ figure }) => figure));
      shape = wanted;
    }
    if (!known.length) place.textContent = t("network-empty");
    known.forEach(({ channels, active }, i) => {
      const lit = new Set(active);
      blocks[i].cells.forEach((cell, channel) => cell.classList.toggle("on", lit.has(channel)));
      blocks[i].count.textContent = t("active", { active: active.length, channels });
    });
  };
}
