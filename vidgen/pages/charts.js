// Curves as SVG: a cursor that follows, and places to click.
const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 160;
const MARGIN = { left: 52, right: 10, top: 8, bottom: 22 };

function element(parent, name, attributes = {}, text = null) {
  const node = parent instanceof SVGElement || name === "svg" ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  parent.append(node);
  return node;
}

function shortNumber(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(1).replace("e-", "e−").replace("e+", "e");
  return String(Number(value.toPrecision(size >= 1000 ? 4 : 3)));
}

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? rough;
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-6; value += step) found.push(Math.abs(value) < step * 1e-9 ? 0 : value);
  return found;
}

// Exponential moving average without the pull of its start.
function smoothed(values, weight) {
  let sum = 0;
  let mass = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return sum / mass;
  });
}

class Chart {
  constructor(host, spec, axis, { seek, marks = [], cuts = [] }) {
    Object.assign(this, { spec, axis, seek, marks, cuts, index: 0, logarithmic: false, weight: 0 });
    this.root = element(host, "figure", { class: "chart", tabindex: "0", role: "slider", "aria-label": spec.title, "aria-valuemin": "0", "aria-valuemax": axis.values.length - 1 });
    const caption = element(this.root, "figcaption", { title: spec.about });
    element(caption, "b", {}, spec.title);
    element(caption, "span", {}, [spec.unit, { low: "lower is better", high: "higher is better", one: "best near 1" }[spec.better]].filter(Boolean).join(" · "));
    this.svg = element(this.root, "svg", { height: HEIGHT, "aria-hidden": "true" });
    this.legend = element(this.root, "div", { class: "legend" });
    this.values = spec.series.map((series) => {
      const item = element(this.legend, "span");
      element(item, "i", { class: "swatch", style: `--swatch: ${this.color(series)}` });
      item.append(`${series.name} `);
      return element(item, "b");
    });
    const point = (event) => {
      const box = this.svg.getBoundingClientRect();
      const x = (event.clientX - box.left - MARGIN.left) / (box.width - MARGIN.left - MARGIN.right);
      this.seek(this.nearest(axis.low + x * (axis.high - axis.low)));
    };
    this.svg.addEventListener("pointerdown", (event) => { if (event.button === 0) point(event); });
    this.svg.addEventListener("pointermove", (event) => { if (event.buttons & 1) point(event); });
    this.root.addEventListener("keydown", (event) => {
      const last = axis.values.length - 1;
      const target = { ArrowLeft: this.index - 1, ArrowRight: this.index + 1, PageDown: this.index - 10, PageUp: this.index + 10, Home: 0, End: last }[event.key];
      if (target !== undefined) { event.preventDefault(); this.seek(Math.min(last, Math.max(0, target))); }
    });
    new ResizeObserver(() => this.draw()).observe(this.root);
  }

  color(series) { return series.color === null ? "var(--dim)" : `var(--c${series.color % 8})`; }

  nearest(x) {
    const values = this.axis.values;
    let best = 0;
    for (let index = 1; index < values.length; index += 1) if (Math.abs(values[index] - x) < Math.abs(values[best] - x)) best = index;
    return best;
  }

  x(value) { return MARGIN.left + (value - this.axis.low) / (this.axis.high - this.axis.low || 1) * (this.width - MARGIN.left - MARGIN.right); }

  y(value) {
    const scaled = this.logarithmic ? Math.log10(value) : value;
    return HEIGHT - MARGIN.bottom - (scaled - this.low) / (this.high - this.low) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  }

  setRange(curves) {
    let low = Infinity;
    let high = -Infinity;
    for (const values of curves) {
      for (const value of values) {
        if (value === null || (this.logarithmic && value <= 0)) continue;
        const scaled = this.logarithmic ? Math.log10(value) : value;
        low = Math.min(low, scaled);
        high = Math.max(high, scaled);
      }
    }
    if (!Number.isFinite(low)) [low, high] = [0, 1];
    if (!this.logarithmic && low > 0 && low < 0.6 * high) low = 0;
    const pad = (high - low || Math.abs(high) || 1) * 0.06;
    this.low = low === 0 && !this.logarithmic ? 0 : low - pad;
    this.high = high + pad;
  }

  draw() {
    this.width = Math.max(120, this.svg.clientWidth);
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    const smooth = this.spec.smooth && this.weight > 0;
    const curves = this.spec.series.map((series) => series.values);
    this.shown = smooth ? curves.map((values) => smoothed(values, this.weight)) : curves;
    this.setRange([...curves, ...this.shown]);
    this.svg.replaceChildren();
    const bottom = HEIGHT - MARGIN.bottom;
    for (const tick of ticks(this.low, this.high, 4)) {
      if (this.logarithmic && !Number.isInteger(tick) && this.high - this.low > 1) continue;
      const value = this.logarithmic ? 10 ** tick : tick;
      const y = this.y(value);
      element(this.svg, "line", { class: "grid", x1: MARGIN.left, x2: this.width - MARGIN.right, y1: y, y2: y });
      element(this.svg, "text", { x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" }, shortNumber(value));
    }
    const wanted = Math.max(2, Math.floor(this.width / 90));
    for (const tick of ticks(this.axis.low, this.axis.high, wanted)) {
      element(this.svg, "text", { x: this.x(tick), y: HEIGHT - 6, "text-anchor": "middle" }, `${shortNumber(tick)}${this.axis.unit}`);
    }
    for (const [at, label] of this.marks) {
      const line = element(this.svg, "line", { class: "cut", x1: this.x(at), x2: this.x(at), y1: MARGIN.top, y2: bottom });
      element(line, "title", {}, label);
    }
    this.spec.series.forEach((series, index) => {
      if (smooth) this.path(curves[index], series, "raw");
      this.path(this.shown[index], series, series.color === null ? "reference" : "");
    });
    this.cursor = element(this.svg, "line", { class: "cursor", y1: MARGIN.top, y2: bottom });
    this.point(this.index);
  }

  path(values, series, kind) {
    const columns = this.width - MARGIN.left - MARGIN.right;
    const step = Math.max(1, Math.floor(values.length / columns));
    let text = "";
    let pen = false;
    for (let start = 0; start < values.length; start += step) {
      const group = [];
      for (let index = start; index < Math.min(start + step, values.length); index += 1) {
        if (values[index] !== null && (!this.logarithmic || values[index] > 0)) group.push(index);
      }
      if (!group.length) { pen = false; continue; }
      const least = group.reduce((best, index) => (values[index] < values[best] ? index : best));
      const most = group.reduce((best, index) => (values[index] > values[best] ? index : best));
      for (const index of least === most ? [least] : [Math.min(least, most), Math.max(least, most)]) {
        text += `${pen ? "L" : "M"}${this.x(this.axis.values[index]).toFixed(1)} ${this.y(values[index]).toFixed(1)}${pen ? "" : "h.01"}`;
        pen = true;
      }
    }
    element(this.svg, "path", { d: text, class: kind, style: `--swatch: ${this.color(series)}` });
  }

  point(index) {
    this.index = index;
    if (!this.cursor) return;
    const x = this.x(this.axis.values[index] ?? this.axis.low);
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    this.values.forEach((node, number) => { node.textContent = shortNumber(this.shown[number][index]); });
    this.root.setAttribute("aria-valuenow", index);
    this.root.setAttribute("aria-valuetext", `${this.axis.name} ${shortNumber(this.axis.values[index])}: ${this.legend.textContent}`);
  }
}

function drawCharts(host, charts, axis, options) {
  axis = { low: axis.values[0] ?? 0, high: axis.values[axis.values.length - 1] ?? 1, ...axis };
  return charts.map((spec) => new Chart(host, spec, axis, options));
}
