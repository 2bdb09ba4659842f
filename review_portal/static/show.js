// Builds the element that shows an item. Content is only ever set as text or drawn.

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") made.className = value;
    else if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

function drawn(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Text with its placeholders as chips, typical words underlined and marked spans. Offsets count
// code points, so that they mean the same in every language.
export function showText(item, texts, marks = [], classes = []) {
  const characters = Array.from(item.text);
  const layers = [
    ...item.mask_spans.map(([start, end, type]) => ({ start, end, type, sort: "masked" })),
    ...marks.map((mark, place) => ({ ...mark, place, sort: "marked" })),
    ...(item.evidence || []).map(([start, end]) => ({ start, end, sort: "evident" })),
  ];
  const rank = { masked: 0, marked: 1, evident: 2 };
  layers.sort((a, b) => a.start - b.start || rank[a.sort] - rank[b.sort]);
  const parts = [];
  let at = 0;
  for (const layer of layers) {
    if (layer.start < at || layer.end > characters.length) continue;
    parts.push(characters.slice(at, layer.start).join(""));
    const words = characters.slice(layer.start, layer.end).join("");
    const piece = element("span", { class: layer.sort }, words);
    if (layer.sort === "masked") piece.title = `${texts["label.masked"]}: ${layer.type}`;
    if (layer.sort === "marked") piece.append(element("sub", {}, classes[layer.class_index]));
    if (layer.sort === "evident" && !item.evidence_shown) piece.className = "";
    parts.push(piece);
    at = layer.end;
  }
  parts.push(characters.slice(at).join(""));
  return element("div", { class: "text", dir: "auto", lang: item.language || "" }, ...parts);
}

// Where the reader's selection lies in a shown text, in code points; null outside of it.
export function selectedSpan(box) {
  const selection = document.getSelection();
  if (!selection || selection.isCollapsed || !box || !selection.rangeCount) return null;
  const range = selection.getRangeAt(0);
  if (!box.contains(range.startContainer) || !box.contains(range.endContainer)) return null;
  const textBefore = (node, offset) => {
    const lead = document.createRange();
    lead.setStart(box, 0);
    lead.setEnd(node, offset);
    const copy = lead.cloneContents();
    for (const name of copy.querySelectorAll("sub")) name.remove();
    return Array.from(copy.textContent);
  };
  const characters = textBefore(range.endContainer, range.endOffset);
  let start = textBefore(range.startContainer, range.startOffset).length;
  let end = characters.length;
  // Blanks at the edges are there by accident: a double click takes them along.
  while (start < end && /\s/.test(characters[start])) start += 1;
  while (start < end && /\s/.test(characters[end - 1])) end -= 1;
  return start < end ? { start, end } : null;
}

// Selects the next or the previous word of a shown text, or adds it to the selection.
export function moveSelection(box, direction, extend) {
  const selection = document.getSelection();
  if (!box.contains(selection.anchorNode)) selection.collapse(box, 0);
  else if (!extend && !selection.isCollapsed) {
    if (direction === "forward") selection.collapseToEnd();
    else selection.collapseToStart();
  }
  selection.modify("extend", direction, "word");
  if (!box.contains(selection.focusNode)) selection.extend(box, direction === "forward" ? box.childNodes.length : 0);
}

const PLACEHOLDER = /<[A-Z_]+_\d+>/g;

// How many places of an item were masked.
export function maskCount(item) {
  if (item.kind !== "record") return item.mask_spans.length;
  return JSON.stringify(item.record).match(PLACEHOLDER)?.length ?? 0;
}

function showImage(item, texts) {
  const image = element("img", { class: "picture", alt: texts["label.image_alt"], draggable: false });
  if (item.image_png) {
    const bytes = Uint8Array.from(atob(item.image_png), (c) => c.charCodeAt(0));
    image.src = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
  } else {
    image.src = item.content_url;
  }
  let scale = 1;
  let contrast = 0;
  const apply = () => {
    image.dataset.scale = scale;
    image.dataset.contrast = contrast;
  };
  const tool = (label, change) => {
    const button = element("button", { type: "button", class: "quiet" }, label);
    button.addEventListener("click", () => {
      change();
      apply();
    });
    return button;
  };
  const tools = element(
    "div",
    { class: "tools", role: "group", "aria-label": texts["label.tool"] },
    tool(texts["label.zoom_in"], () => (scale = Math.min(item.image_png ? 4 : 5, scale + 1))),
    tool(texts["label.zoom_out"], () => (scale = Math.max(1, scale - 1))),
    tool(texts["label.contrast"], () => (contrast = (contrast + 1) % 3)),
  );
  apply();
  image.decode().then(() => image.classList.toggle("tiny", image.naturalWidth <= 64)).catch(() => {});
  return element("div", { class: "image" }, element("div", { class: "frame" }, image), tools);
}

function stepScale(count, width, height, texts) {
  const first = drawn("text", { x: 46, y: height - 2 });
  first.textContent = "1";
  const last = drawn("text", { x: width - 10, y: height - 2, "text-anchor": "end" });
  last.textContent = texts["label.steps"].replace("{steps}", count);
  return [first, last];
}

function showSeries(item, texts) {
  const steps = item.series;
  const channels = steps[0].length;
  const box = element("div", { class: "series" });
  const width = 720;
  const height = Math.max(70, Math.min(150, 420 / channels));
  for (let channel = 0; channel < channels; channel += 1) {
    const values = steps.map((step) => step[channel]);
    const low = Math.min(...values);
    const high = Math.max(...values);
    const span = high - low || 1;
    const points = values.map((value, index) => {
      const x = 46 + (index * (width - 56)) / Math.max(1, values.length - 1);
      const y = 8 + (1 - (value - low) / span) * (height - 22);
      return `${x.toFixed(1)},${y.toFixed(1)}`;
    });
    const name = texts["label.channel"].replace("{number}", channel + 1);
    const title = drawn("title", {});
    title.textContent = `${name}: ${low.toPrecision(3)} – ${high.toPrecision(3)}`;
    const top = drawn("text", { x: 42, y: 14, "text-anchor": "end" });
    top.textContent = high.toPrecision(3);
    const bottom = drawn("text", { x: 42, y: height - 12, "text-anchor": "end" });
    bottom.textContent = low.toPrecision(3);
    const plot = drawn(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, role: "img", class: `plot c${channel % 6}` },
      title,
      drawn("line", { x1: 46, x2: width - 10, y1: height - 14, y2: height - 14, class: "axis" }),
      drawn("polyline", { points: points.join(" ") }),
      top,
      bottom,
    );
    if (channel === channels - 1) plot.append(...stepScale(steps.length, width, height, texts));
    box.append(element("figure", {}, plot, element("figcaption", {}, name)));
  }
  box.setAttribute("role", "group");
  box.setAttribute(
    "aria-label",
    texts["label.series_alt"].replace("{channels}", channels).replace("{steps}", steps.length),
  );
  return box;
}

function showRecord(item, texts) {
  const body = element("tbody");
  for (const [column, value] of Object.entries(item.record)) {
    const cell = element("td", { class: typeof value === "number" ? "number" : "" });
    for (const part of (value === null ? "–" : String(value)).split(/(<[A-Z_]+_\d+>)/))
      cell.append(/^<[A-Z_]+_\d+>$/.test(part) ? element("span", { class: "masked" }, part) : part);
    body.append(element("tr", {}, element("th", { scope: "row" }, column), cell));
  }
  const head = element(
    "thead",
    {},
    element("tr", {}, element("th", { scope: "col" }, texts["label.column"]), element("th", { scope: "col" }, texts["label.value"])),
  );
  return element("table", { class: "record" }, head, body);
}

export function show(item, texts) {
  if (item.kind === "text") return showText(item, texts);
  if (item.kind === "image") return showImage(item, texts);
  if (item.kind === "series") return showSeries(item, texts);
  return showRecord(item, texts);
}
