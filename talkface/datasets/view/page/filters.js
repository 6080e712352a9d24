// What is asked for: words, labels, marks and score ranges; and the histograms that one sets the ranges on.

import { search, shortNumber, whyHidden } from "./data.js";
import { fitted } from "./draw.js";

const BINS = 48;
const STEPS = 240;
const SEARCHED = ["key", "source", "speaker", "emotion", "language", "camera", "licence"];
const LABELS = ["emotion", "intensity", "speaker", "split", "camera", "language"];

export class Filters {
  constructor(root, table, about, changed) {
    Object.assign(this, { root, table, about, changed, ranges: new Map(), blocks: new Map() });
    this.text = root.querySelector("#search");
    this.text.addEventListener("input", () => changed());
    this.shown = root.querySelector("#shown");
    this.shown.addEventListener("change", () => changed());
    this.labels = LABELS.filter((name) => name in table.columns).map((name) => this.label(name)).filter(Boolean);
    this.adder = root.querySelector("#add-score");
    this.scores = measured(table, about);
    this.adder.append(...this.scores.map((s) => new Option(s.name)));
    this.adder.addEventListener("change", () => {
      if (this.adder.value) this.addScore(this.adder.value);
      this.adder.value = "";
    });
    root.querySelector("#clear").addEventListener("click", () => this.clear());
  }

  label(name) {
    const text = name in this.table.words;
    const values = text ? this.table.choices(name) : [...new Set(this.table.columns[name])].filter((v) => !Number.isNaN(v)).sort((a, b) => a - b);
    if (values.length < (name === "split" ? 1 : 1)) return null;
    const select = document.createElement("select");
    select.id = `label-${name}`;
    select.append(new Option("any", ""), ...values.map((v) => new Option(v)), new Option("unknown", "\0"));
    const field = document.createElement("label");
    field.append(name, select);
    this.root.querySelector("#labels").append(field);
    select.addEventListener("change", () => this.changed());
    return { name, select, text };
  }

  clear() {
    this.text.value = "";
    this.shown.value = "all";
    for (const { select } of this.labels) select.value = "";
    this.ranges.clear();
    for (const block of this.blocks.values()) block.reset();
    this.changed();
  }

  /** Rows that fulfil all that is asked for. */
  rows(selection) {
    const { table } = this;
    const kept = search(table, this.text.value, SEARCHED);
    for (const { name, select, text } of this.labels) {
      if (!select.value) continue;
      const column = table.columns[name];
      const unknown = select.value === "\0";
      const code = text ? table.words[name].indexOf(unknown ? "" : select.value) : Number(select.value);
      for (let row = 0; row < table.rows; row++) {
        if (unknown && !text ? !Number.isNaN(column[row]) : column[row] !== code) kept[row] = 0;
      }
    }
    for (const [name, [low, high]] of this.ranges) {
      const column = table.columns[name];
      for (let row = 0; row < table.rows; row++) if (!(column[row] >= low && column[row] <= high)) kept[row] = 0;
    }
    this.state(kept, selection);
    return Array.from({ length: table.rows }, (_, row) => row).filter((row) => kept[row]);
  }

  state(kept, selection) {
    const wanted = this.shown.value;
    if (wanted === "all") return;
    for (let row = 0; row < this.table.rows; row++) {
      if (!kept[row]) continue;
      const mark = selection.marks[this.table.text("key", row)] ?? "none";
      const hidden = whyHidden(this.table, row, selection).length > 0;
      if (!{ shown: !hidden, hidden, keep: mark === "keep", drop: mark === "drop", none: mark === "none" }[wanted]) kept[row] = 0;
    }
  }

  addScore(name) {
    if (this.blocks.has(name)) return;
    const block = new Histogram(name, this.table.columns[name], this.about, (range) => {
      if (range) this.ranges.set(name, range);
      else this.ranges.delete(name);
      this.changed();
    });
    block.root.querySelector("button").addEventListener("click", () => this.removeScore(name));
    this.blocks.set(name, block);
    this.root.querySelector("#scores").append(block.root);
    block.draw();
  }

  removeScore(name) {
    this.blocks.get(name).root.remove();
    this.blocks.delete(name);
    if (this.ranges.delete(name)) this.changed();
  }

  /** Draw thresholds anew. */
  selected(selection) {
    for (const [name, block] of this.blocks) {
      block.bounds = selection.thresholds[name] ?? this.about.built_with[name] ?? {};
      block.draw();
    }
  }
}

/** Scores, and other numbers that were measured, that at least one clip has. */
export function measured(table, about) {
  const scores = [{ name: "duration", unit: "s", description: "length of the clip" }, ...about.scores];
  return scores.filter(({ name }) => name in table.columns && table.columns[name].some((v) => !Number.isNaN(v)));
}

class Histogram {
  constructor(name, values, about, changed) {
    Object.assign(this, { values, changed, bounds: {} });
    this.root = document.querySelector("#histogram").content.firstElementChild.cloneNode(true);
    this.root.dataset.score = name;
    const spec = about.scores.find((s) => s.name === name);
    this.root.querySelector(".name").textContent = name;
    this.root.title = spec ? `${spec.description} (${spec.unit})` : name;
    this.canvas = this.root.querySelector("canvas");
    [this.low, this.high] = this.root.querySelectorAll("input");
    this.low.setAttribute("aria-label", `${name}, at least`);
    this.high.setAttribute("aria-label", `${name}, at most`);
    this.count();
    for (const input of [this.low, this.high]) {
      input.max = STEPS;
      input.addEventListener("input", () => this.moved(input));
    }
    this.reset();
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  count() {
    [this.from, this.to] = [Infinity, -Infinity];
    for (const value of this.values) {
      if (value < this.from) this.from = value;
      if (value > this.to) this.to = value;
    }
    if (this.from === this.to) this.to = this.from + (Math.abs(this.from) || 1) * 1e-3;
    this.bins = new Uint32Array(BINS);
    for (const value of this.values) {
      if (!Number.isNaN(value)) this.bins[Math.min(Math.floor(((value - this.from) / (this.to - this.from)) * BINS), BINS - 1)]++;
    }
  }

  reset() {
    this.low.value = 0;
    this.high.value = STEPS;
    this.draw();
  }

  at(step) {
    return this.from + (step / STEPS) * (this.to - this.from);
  }

  moved(input) {
    if (Number(this.low.value) > Number(this.high.value)) input.value = input === this.low ? this.high.value : this.low.value;
    this.draw();
    const [low, high] = this.range();
    this.changed(low === -Infinity && high === Infinity ? null : [low, high]);
  }

  /** The ends of the scale mean no bound at all, whatever was rounded. */
  range() {
    const [low, high] = [Number(this.low.value), Number(this.high.value)];
    return [low === 0 ? -Infinity : this.at(low), high === STEPS ? Infinity : this.at(high)];
  }

  draw() {
    const [low, high] = [Number(this.low.value), Number(this.high.value)];
    this.root.querySelector("output").textContent = `${shortNumber(this.at(low))} … ${shortNumber(this.at(high))}`;
    if (!this.canvas.clientWidth) return;
    const { context, width, height, ratio } = fitted(this.canvas);
    context.clearRect(0, 0, width, height);
    const style = getComputedStyle(this.canvas);
    const most = Math.max(...this.bins, 1);
    for (let i = 0; i < BINS; i++) {
      const inside = (i + 0.5) / BINS >= low / STEPS && (i + 0.5) / BINS <= high / STEPS;
      context.fillStyle = style.getPropertyValue(inside ? "--accent" : "--line");
      const tall = this.bins[i] && Math.max((this.bins[i] / most) ** 0.6 * (height - 2 * ratio), 2 * ratio);
      context.fillRect((i / BINS) * width, height - tall, width / BINS - ratio, tall);
    }
    context.fillStyle = style.getPropertyValue("--drop");
    for (const bound of Object.values(this.bounds)) {
      if (bound === null || bound === undefined) continue;
      const x = ((bound - this.from) / (this.to - this.from)) * width;
      if (x >= 0 && x <= width) context.fillRect(x - ratio, 0, 2 * ratio, height);
    }
  }
}
