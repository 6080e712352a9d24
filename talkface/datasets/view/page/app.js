// The page: a list of clips, what is asked of it, and one player or two.

import { Table, arrays, clipUrl, json, post, search, shortNumber, whyHidden } from "./data.js";
import { Filters, measured } from "./filters.js";
import { VirtualList } from "./list.js";
import { Player, curveColumns, defaultCurves } from "./player.js";

const ROW = 66;
const FIRST_SCORES = ["duration", "face_pixels", "sharpness", "speech_share", "jaw_open_range"];
const $ = (selector) => document.querySelector(selector);

class App {
  async start() {
    const [about, clips, rejects] = await Promise.all([json("/api/dataset"), arrays("/api/clips"), arrays("/api/rejects")]);
    Object.assign(this, { about, selection: about.selection, clips: new Table(clips), rejects: new Table(rejects) });
    this.settings = { overlays: { mesh: true, lines: false, box: true, axes: true }, curves: defaultCurves(about) };
    this.players = [];
    this.active = 0;
    this.tab = "clips";
    const name = about.url.split("/").filter(Boolean).at(-1);
    $("#name").textContent = name;
    $("#name").title = about.url;
    document.title = `${name} · talkface`;
    $("#tab-clips b").textContent = this.clips.rows.toLocaleString("en");
    $("#tab-rejects b").textContent = this.rejects.rows.toLocaleString("en");
    this.list = new VirtualList($("#list"), ROW, (element, row) => this.fill(element, row), (row) => this.chosen(row));
    this.filters = new Filters($("#filters"), this.clips, about, () => this.update());
    this.sortChoices();
    const scores = new Set(measured(this.clips, about).map((s) => s.name));
    for (const score of new Set([...Object.keys(this.selection.thresholds), ...FIRST_SCORES])) {
      if (scores.has(score)) this.filters.addScore(score);
    }
    this.filters.selected(this.selection);
    this.curveChoices();
    this.reasonChoices();
    this.listen();
    this.update();
    if (location.hash) await this.fromHash();
    else this.list.select(0);
    document.body.dataset.ready = "true";
  }

  listen() {
    document.addEventListener("keydown", (event) => this.key(event));
    $("#compare").addEventListener("click", () => this.compare());
    $("#help").addEventListener("click", () => $("#keys").showModal());
    $("#open-filters").addEventListener("click", () => document.body.classList.toggle("filtering"));
    $("#empty button").addEventListener("click", () => this.filters.clear());
    $("#sort").addEventListener("change", () => this.update());
    $("#direction").addEventListener("click", () => {
      this.descending = !this.descending;
      $("#direction").textContent = this.descending ? "↓" : "↑";
      this.update();
    });
    for (const tab of ["clips", "rejects"]) $(`#tab-${tab}`).addEventListener("click", () => this.show(tab));
    for (const button of document.querySelectorAll("[data-overlay]")) {
      button.addEventListener("click", () => this.toggleOverlay(button.dataset.overlay));
    }
    window.addEventListener("hashchange", () => this.fromHash());
    this.toggles();
  }

  sortChoices() {
    const names = ["as stored", "source", "duration", ...this.about.scores.map((s) => s.name).filter((n) => n in this.clips.columns)];
    $("#sort").append(...names.map((name) => new Option(name, name === "as stored" ? "" : name)));
  }

  curveChoices() {
    const box = $("#choose-curves div");
    for (const [column, names] of Object.entries(curveColumns(this.about))) {
      const group = document.createElement("fieldset");
      const legend = document.createElement("legend");
      legend.textContent = column;
      group.append(legend);
      for (const name of names) {
        const full = `${column}.${name}`;
        const label = document.createElement("label");
        const input = Object.assign(document.createElement("input"), { type: "checkbox", value: full, checked: this.settings.curves.includes(full) });
        input.addEventListener("change", () => this.chooseCurve(full, input.checked));
        label.append(input, name);
        group.append(label);
      }
      box.append(group);
    }
    document.addEventListener("pointerdown", (event) => {
      if (!event.target.closest("#choose-curves")) $("#choose-curves").open = false;
    });
  }

  chooseCurve(name, on) {
    this.settings.curves = on ? [...this.settings.curves, name] : this.settings.curves.filter((n) => n !== name);
    for (const player of this.players) player.curvesChanged();
  }

  // The list

  show(tab) {
    this.tab = tab;
    document.body.dataset.tab = tab;
    for (const name of ["clips", "rejects"]) $(`#tab-${name}`).setAttribute("aria-selected", String(name === tab));
    this.update();
  }

  get table() {
    return this.tab === "clips" ? this.clips : this.rejects;
  }

  update() {
    const rows = this.tab === "clips" ? this.sorted(this.filters.rows(this.selection)) : this.rejectRows();
    const key = this.player?.key;
    const at = key === undefined ? -1 : rows.findIndex((row) => this.table.text("key", row) === key);
    $("#list").scrollTop = Math.min($("#list").scrollTop, rows.length * ROW);
    this.list.show(rows, at);
    $("#empty").hidden = rows.length > 0;
    this.count(rows.length);
  }

  count(found) {
    const marks = Object.values(this.selection.marks);
    const of = (mark) => marks.filter((m) => m === mark).length;
    const all = this.table.rows.toLocaleString("en");
    $("#count").textContent = `${found.toLocaleString("en")} of ${all} · ${of("keep")} keep · ${of("drop")} drop`;
  }

  sorted(rows) {
    const by = $("#sort").value;
    if (!by) return this.descending ? rows.reverse() : rows;
    const sign = this.descending ? -1 : 1;
    if (by in this.clips.words) return rows.sort((a, b) => sign * this.clips.text(by, a).localeCompare(this.clips.text(by, b)));
    const values = this.clips.columns[by];
    return rows.sort((a, b) => {
      const missing = Number.isNaN(values[a]) - Number.isNaN(values[b]);
      return missing || sign * (values[a] - values[b]) || a - b;
    });
  }

  rejectRows() {
    const found = search(this.rejects, $("#search").value, ["key", "source", "stage", "reason", "message"]);
    const wanted = $("#reason").value;
    return Array.from({ length: this.rejects.rows }, (_, row) => row).filter((row) => found[row] && (!wanted || wanted === this.reason(row)));
  }

  reason(row) {
    return `${this.rejects.text("stage", row)}: ${this.rejects.text("reason", row).replaceAll("_", " ")}`;
  }

  reasonChoices() {
    const counts = new Map();
    for (let row = 0; row < this.rejects.rows; row++) counts.set(this.reason(row), (counts.get(this.reason(row)) ?? 0) + 1);
    const most = [...counts].sort((a, b) => b[1] - a[1]);
    $("#reason").append(...most.map(([reason, count]) => new Option(`${reason} (${count})`, reason)));
    $("#reason").addEventListener("change", () => this.update());
  }

  fill(element, row) {
    element.replaceChildren(...(this.tab === "clips" ? this.clipRow(element, row) : this.rejectRow(element, row)));
  }

  clipRow(element, row) {
    const t = this.clips;
    const key = t.text("key", row);
    const mark = this.selection.marks[key];
    const why = whyHidden(t, row, this.selection);
    element.className = `row ${mark ?? ""} ${why.length ? "hidden-clip" : ""}`;
    element.title = why.join("; ") || key;
    const { main, aside } = rowParts(titleOf(this.labelsOf(row)), `${t.text("split", row)} · ${t.number("duration", row).toFixed(1)} s · ${t.text("source", row)}`);
    const by = $("#sort").value;
    if (by && by in t.columns && !(by in t.words)) aside.append(textElement("span", "value", shortNumber(t.number(by, row))));
    aside.append(textElement("span", "badge", mark ?? (why.length ? "hidden" : "")));
    return [this.thumb(key), main, aside];
  }

  labelsOf(row) {
    const t = this.clips;
    const texts = Object.fromEntries(["speaker", "emotion", "source"].map((name) => [name, t.text(name, row)]));
    return { ...texts, intensity: t.number("intensity", row), start_ns: t.number("start_ns", row) };
  }

  rejectRow(element, row) {
    const t = this.rejects;
    element.className = "row reject";
    element.title = t.text("message", row);
    const { main, aside } = rowParts([textElement("span", "what", this.reason(row))], t.text("source", row));
    aside.append(textElement("span", "value", span(t, row)), textElement("span", "badge", this.selection.marks[t.text("key", row)] ?? ""));
    return [t.number("playable", row) ? this.thumb(t.text("key", row)) : textElement("span", "thumb none", "∅"), main, aside];
  }

  thumb(key) {
    if (!this.about.has_video) return textElement("span", "thumb none", "♪");
    const image = Object.assign(new Image(56, 56), { className: "thumb", alt: "", loading: "lazy", decoding: "async" });
    // Rows that fly past ask for nothing.
    setTimeout(() => image.isConnected && (image.src = clipUrl(key, "picture")), 60);
    return image;
  }

  // Players

  get player() {
    return this.players[this.active];
  }

  async chosen(row) {
    const key = this.table.text("key", row);
    if (this.tab === "rejects" && !this.rejects.number("playable", row)) return this.explain(row);
    await this.open(key);
  }

  async open(key, frame = 0) {
    $("#nothing").hidden = true;
    if (!this.players.length) this.addPlayer();
    const player = this.player;
    player.ready = player.load(key, frame);
    await player.ready;
    this.remember(player);
  }

  addPlayer() {
    const player = new Player(this.about, this.settings, (root, key, clip) => this.facts(root, key, clip), (key, mark) => this.mark(key, mark));
    player.root.addEventListener("pointerdown", () => this.activate(this.players.indexOf(player)));
    player.video.loop = this.loop ?? false;
    player.video.addEventListener("pause", () => this.remember(player));
    this.players.push(player);
    $("#players").append(player.root);
    this.activate(this.players.length - 1);
    return player;
  }

  activate(index) {
    this.active = Math.min(index, this.players.length - 1);
    this.players.forEach((player, i) => player.root.classList.toggle("active", this.players.length > 1 && i === this.active));
    document.body.dataset.players = this.players.length;
    const at = this.list.items.findIndex((row) => this.table.text("key", row) === this.player.key);
    if (at >= 0 && at !== this.list.at) this.list.select(at, true);
  }

  async compare() {
    if (!this.players.length) return;
    if (this.players.length === 2) {
      const [other] = this.players.splice(1 - this.active, 1);
      other.video.pause();
      other.root.remove();
      this.activate(0);
    } else {
      const { key, frame } = this.player;
      this.player.video.pause();
      const other = this.addPlayer();
      other.ready = other.load(key, frame);
    }
    const both = this.players.length === 2;
    $("#compare").setAttribute("aria-pressed", String(both));
    $("#linked").hidden = !both;
    for (const player of this.players) player.later();
  }

  async playing() {
    const together = this.players.length === 2 && $("#linked input").checked ? this.players : [this.player];
    await Promise.all(together.map((player) => player.ready));
    const start = this.player.video.paused;
    for (const player of together) if (player.video.paused === start) player.toggle();
  }

  /** A clip that never came to be: only its reason can be shown. */
  explain(row) {
    const t = this.rejects;
    this.toast(`${t.text("source", row)} — ${t.text("stage", row)}: ${t.text("message", row) || t.text("reason", row)}`, 12000);
  }

  /** Scores with their thresholds, labels, and why the clip is not shown. */
  facts(root, key, clip) {
    const row = this.clips.rowOf.get(key);
    root.querySelector(".title").replaceChildren(...titleOf({ ...clip.labels, source: clip.source, start_ns: clip.start_ns }));
    const from = (ns) => (ns / 1e9).toFixed(2);
    root.querySelector(".sub").textContent = `${clip.source} · ${from(clip.start_ns)}–${from(clip.end_ns)} s · ${clip.frames} frames, ${clip.fps_avg.toFixed(2)} fps${clip.is_vfr ? ", variable" : ""}`;
    root.querySelector(".sub").title = key;
    this.state(root, key);
    const table = document.createElement("table");
    table.className = "scores";
    const shown = this.about.scores.filter((s) => s.name in clip.scores || s.name in this.clips.columns);
    const bound = ({ name }) => name in this.selection.thresholds || name in this.about.built_with;
    const all = [{ name: "duration", unit: "s", description: "length of the clip" }, ...shown];
    for (const { name, unit, description } of [...all.filter(bound), ...all.filter((score) => !bound(score))]) {
      const value = row !== undefined && name in this.clips.columns ? this.clips.number(name, row) : (clip.scores[name] ?? clip[name] ?? NaN);
      table.append(this.scoreRow(name, unit, description, value));
    }
    const labels = Object.entries(clip.labels).filter(([, v]) => v !== "" && v !== 0).map(([k, v]) => `${k} ${v}`);
    root.querySelector(".facts").replaceChildren(table, textElement("p", "labels", labels.join(" · ")), textElement("p", "key", key));
  }

  scoreRow(name, unit, description, value) {
    const bounds = this.selection.thresholds[name] ?? this.about.built_with[name];
    const line = document.createElement("tr");
    line.title = description;
    line.dataset.score = name;
    const words = bounds ? [["min", "≥"], ["max", "≤"]].filter(([s]) => bounds[s] !== undefined && bounds[s] !== null).map(([s, sign]) => `${sign} ${shortNumber(bounds[s])}`) : [];
    const outside = bounds && !Number.isNaN(value) && ((bounds.min ?? -Infinity) > value || (bounds.max ?? Infinity) < value);
    if (words.length) line.className = outside ? "outside" : "inside";
    const cells = [name.replaceAll("_", " "), shortNumber(value), unit, words.join(", ")];
    line.append(...cells.map((text, i) => textElement("td", ["name", "value", "unit", "bound"][i], text)));
    return line;
  }

  /** Marks and the reason why a clip is hidden, on its player. */
  state(root, key) {
    const mark = this.selection.marks[key];
    for (const button of root.querySelectorAll("[data-mark]")) {
      button.setAttribute("aria-pressed", String(button.dataset.mark === mark));
      button.disabled = !this.about.writable;
    }
    const row = this.clips.rowOf.get(key);
    const reasons = row === undefined ? this.rejectReasons(key) : whyHidden(this.clips, row, this.selection).map((why) => `hidden: ${why}`);
    const why = root.querySelector(".why");
    why.textContent = reasons.join("; ");
    why.hidden = !reasons.length;
  }

  rejectReasons(key) {
    const t = this.rejects;
    const rows = Array.from({ length: t.rows }, (_, row) => row).filter((row) => t.text("key", row) === key);
    const back = this.selection.marks[key] === "keep" ? ["marked keep: comes back with toolkit filter --rebuild"] : [];
    return [...rows.map((row) => `left out when built: ${t.text("message", row) || t.text("reason", row)}`), ...back];
  }

  async mark(key, mark) {
    if (!key || !this.about.writable) return;
    const value = this.selection.marks[key] === mark ? null : mark;
    try {
      this.selection = await post("/api/marks", { [key]: value });
    } catch (error) {
      return this.toast(error.message);
    }
    this.list.refresh();
    this.count(this.list.items.length);
    for (const player of this.players) if (player.key) this.state(player.root, player.key);
  }

  // Keys and the address

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || $("#keys").open) return;
    const typing = event.target.matches("input:not([type=range]):not([type=checkbox]), select, textarea");
    if (typing) {
      if (event.key === "Escape" || (event.key === "Enter" && event.target.matches("input"))) $("#list").focus();
      return;
    }
    const action = this.action(event);
    if (!action) return;
    event.preventDefault();
    action();
  }

  action({ key, shiftKey, target }) {
    const { player } = this;
    if (target.matches("[type=range]") && !target.matches(".scrub") && key.startsWith("Arrow")) return null;
    if (target.matches("button, summary, [type=checkbox]") && (key === " " || key === "Enter")) return null;
    const walk = (by) => () => this.list.select(Math.min(Math.max(this.list.at + by, 0), this.list.items.length - 1));
    const page = Math.max(Math.floor($("#list").clientHeight / ROW) - 1, 1);
    const free = { ArrowDown: walk(1), ArrowUp: walk(-1), PageDown: walk(page), PageUp: walk(-page), "/": () => $("#search").select(), "?": () => $("#keys").showModal() };
    if (key in free) return free[key];
    if (!player?.key) return null;
    const overlays = { m: "mesh", p: "lines", b: "box", a: "axes" };
    if (key in overlays) return () => this.toggleOverlay(overlays[key]);
    const jump = Math.max(Math.round((0.5 * player.pts.length) / player.duration), 1);
    return {
      " ": () => this.playing(),
      ArrowLeft: () => player.step(shiftKey ? -jump : -1),
      ArrowRight: () => player.step(shiftKey ? jump : 1),
      Home: () => player.seek(0),
      End: () => player.seek(player.pts.length - 1),
      g: () => (player.parts.frame.focus(), player.parts.frame.select()),
      k: () => this.mark(player.key, "keep"),
      d: () => this.mark(player.key, "drop"),
      u: () => this.mark(player.key, null),
      c: () => this.compare(),
      x: () => this.activate(1 - this.active),
      l: () => this.looping(),
    }[key];
  }

  looping() {
    this.loop = !this.loop;
    for (const player of this.players) player.video.loop = this.loop;
    this.toast(this.loop ? "plays in a loop" : "plays once", 1200);
  }

  toggleOverlay(name) {
    this.settings.overlays[name] = !this.settings.overlays[name];
    this.toggles();
    for (const player of this.players) player.later();
  }

  toggles() {
    for (const button of document.querySelectorAll("[data-overlay]")) {
      button.setAttribute("aria-pressed", String(this.settings.overlays[button.dataset.overlay]));
    }
  }

  remember(player) {
    if (player !== this.player || !player.key) return;
    history.replaceState(null, "", `#clip=${encodeURIComponent(player.key)}&frame=${player.frame}`);
  }

  async fromHash() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const key = asked.get("clip");
    if (!key || key === this.player?.key) return;
    const at = this.list.items.findIndex((row) => this.table.text("key", row) === key);
    if (at >= 0) this.list.select(at, true);
    await this.open(key, Number(asked.get("frame")) || 0);
  }

  toast(text, milliseconds = 6000) {
    const box = $("#toast");
    box.textContent = text;
    box.hidden = false;
    clearTimeout(this.toasting);
    this.toasting = setTimeout(() => (box.hidden = true), milliseconds);
  }
}

/** What people know a clip by, as elements: its labels, else its file, cut short where there is no room; where it begins, never cut. */
function titleOf({ speaker, emotion, intensity, source, start_ns: start }) {
  const labels = [speaker, emotion, intensity].filter(Boolean).join(" ");
  const what = textElement("span", "what", labels || source.split("/").at(-1).replace(/\.\w+$/, ""));
  return labels && !start ? [what] : [what, textElement("span", "when", `· ${(start / 1e9).toFixed(1)} s`)];
}

function span(table, row) {
  const [start, end] = [table.number("start_ns", row), table.number("end_ns", row)];
  return Number.isNaN(start) ? "whole file" : `${(start / 1e9).toFixed(1)}–${(end / 1e9).toFixed(1)} s`;
}

function textElement(tag, className, text) {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}

function rowParts(title, sub) {
  const main = textElement("span", "main", "");
  const first = textElement("span", "title", "");
  first.append(...title);
  main.append(first, textElement("span", "sub", sub));
  return { main, aside: textElement("span", "aside", "") };
}

window.talkface = new App();
window.talkface.start().catch((error) => window.talkface.toast(`The page could not begin: ${error.message}`, 1e9));
