// The network as a picture: a block of squares for each layer, lit where the channel was computed. Layers that tell no
// more than their share are bars, and where they are many, the cells of a table: a row for each kind, a column for each
// layer.
import { made } from "./made.js";
import { percent } from "./strings.js";

const ROWS = 16;
const MOST_BARS = 12;
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

// "encoder3.neurons" is of the kind "encoder neurons", and the third of it.
function placed(name) {
  const [, stack, number, part] = name.match(/^(\D+)(\d+)\.(.+)$/) ?? [null, "", "", name];
  return { kind: `${stack === "layer" ? "" : `${stack} `}${part.replaceAll("_", " ")}`.trim(), number };
}

function table(layers) {
  const rows = new Map();
  const cells = layers.map(({ name }) => {
    const { kind, number } = placed(name), cell = made("td", {}, [made("i")]);
    if (!rows.has(kind)) rows.set(kind, { cells: [], mean: made("td", { className: "mean" }) });
    rows.get(kind).cells.push(cell);
    return { cell, row: rows.get(kind), number };
  });
  const widest = Math.max(...[...rows.values()].map((row) => row.cells.length));
  const body = made("tbody", {}, [...rows].map(([kind, row]) => {
    const rest = made("td", { colSpan: Math.max(1, widest - row.cells.length) });
    return made("tr", {}, [made("th", { scope: "row", textContent: kind }), ...row.cells, ...(row.cells.length < widest ? [rest] : []), row.mean]);
  }));
  return { table: made("table", {}, [body]), cells, rows: [...rows.values()] };
}

function createTable(layers) {
  const { table: picture, cells, rows } = table(layers);
  return {
    picture,
    show(now, t) {
      for (const row of rows) row.computed = [];
      now.forEach(({ skip_rate }, i) => {
        const { cell, row, number } = cells[i], computed = skip_rate === null ? null : 1 - skip_rate;
        if (computed !== null) row.computed.push(computed);
        cell.firstChild.style.setProperty("--computed", `${100 * (computed ?? 0)}%`);
        cell.title = `${number} ${t("computed", { share: percent(computed, 0) })}`.trim();
        cell.setAttribute("aria-label", cell.title);
      });
      for (const { computed, mean } of rows) {
        const share = computed.length ? computed.reduce((sum, one) => sum + one) / computed.length : null;
        mean.textContent = t("computed", { share: percent(share, 0) });
      }
    },
  };
}

export function createNetwork(place) {
  let shape = "", drawings = [], inTable = null;
  return (layers, t) => {
    const wanted = layers.map(({ name, channels, active }) => `${name}:${active ? channels : ""}`).join();
    if (wanted !== shape || !layers.length) {
      inTable = layers.length > MOST_BARS && layers.every(({ active }) => !active) ? createTable(layers) : null;
      drawings = inTable ? [] : layers.map((layer) => (layer.active ? block(layer) : share(layer)));
      place.replaceChildren(...(inTable ? [inTable.picture] : drawings.map(({ figure }) => figure)));
      shape = wanted;
    }
    if (!layers.length) place.textContent = t("network-empty");
    if (inTable) {
      inTable.show(layers, t);
      return;
    }
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
