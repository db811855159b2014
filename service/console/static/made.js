// A new element with properties and children.
export function made(name, properties = {}, children = []) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

export function meter(share) {
  const fill = made("i");
  fill.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  return made("div", { className: "meter" }, [fill]);
}
