// Elements from data. Text goes in as text: nothing here, or that uses this, reads markup.

const SVG = "http://www.w3.org/2000/svg";

// h("p", {class: "note", onclick: f}, "text", child, …); null and false are left out, true is an empty attribute.
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// One of the symbols in index.html; it says nothing to a screen reader.
export function icon(name) {
  return svg("svg", { class: "icon", "aria-hidden": "true", focusable: "false" }, svg("use", { href: `#i-${name}` }));
}

// Changes only what differs: an element that is set anew each second would lose a selection within it.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

export function button(label, { class: kind = "", icon: symbol, ...attributes } = {}) {
  return h("button", { type: "button", class: `button ${kind}`.trim(), ...attributes }, symbol && icon(symbol), h("span", {}, label));
}

// Puts the wanted elements into a parent in this order, and moves none that stands right: a moved one loses focus.
export function arrange(parent, wanted) {
  const kept = new Set(wanted);
  for (const child of [...parent.children]) if (!kept.has(child)) child.remove();
  wanted.forEach((element, index) => {
    if (parent.children[index] !== element) parent.insertBefore(element, parent.children[index] ?? null);
  });
}

// An id that can be copied.
export function copyable(value, what) {
  const label = h("span", { class: "sr-only" }, `Copy ${what}`);
  const copy = h("button", { type: "button", class: "icon-button", title: `Copy ${what}` }, icon("copy"), label);
  copy.addEventListener("click", async () => {
    const copied = await copyText(value);
    setAttribute(copy, "data-copied", copied);
    label.textContent = copied ? `Copied ${what}` : `Select and copy ${what} by hand`;
    announce(label.textContent);
    setTimeout(() => {
      copy.removeAttribute("data-copied");
      label.textContent = `Copy ${what}`;
    }, 2000);
  });
  return h("span", { class: "copyable" }, h("code", {}, value), copy);
}

// The clipboard is only there on pages by HTTPS, and on localhost.
async function copyText(value) {
  try {
    await navigator.clipboard.writeText(value);
    return true;
  } catch {
    const field = h("textarea", { class: "sr-only", "aria-hidden": "true", tabindex: "-1" });
    const before = document.activeElement;
    field.value = value;
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    before?.focus();
    return copied;
  }
}

const QUIET_MS = 700;
let waiting = [];
let timer = null;

// Tells screen readers, politely; what comes at once is told as one, and the same only once.
export function announce(message) {
  if (!waiting.includes(message)) waiting.push(message);
  timer ??= setTimeout(() => {
    timer = null;
    const said = waiting.length > 3 ? [...waiting.slice(0, 2), `And ${waiting.length - 2} more changes.`] : waiting;
    waiting = [];
    document.getElementById("announcements").textContent = said.join(" ");
  }, QUIET_MS);
}
