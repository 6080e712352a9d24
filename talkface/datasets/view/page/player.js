// One clip: picture and sound on one clock, and everything known of the frame that is on the screen.

import { arrays, clipUrl, json, shortNumber } from "./data.js";
import { COLOURS, axesOf, overlay, plot, spectrogram, toCrop } from "./draw.js";

const ALWAYS = ["pts", "valid", "box", "lm", "lm68", "head"];
const ANGLES = "head_degrees";
const ANGLE_NAMES = ["yaw", "pitch", "roll"];
const CHOSEN = ["arkit.jawOpen", "arkit.mouthSmileLeft", "arkit.eyeBlinkLeft", "arkit.browInnerUp", ...ANGLE_NAMES.map((n) => `${ANGLES}.${n}`)];
const NOSE_TIP = 1;
const BITS = ["face", "arkit", "head", "landmarks", "flame"];

/** Columns that make curves: name to the names of what stands in a row. */
export function curveColumns(about) {
  const found = { [ANGLES]: ANGLE_NAMES };
  for (const spec of about.columns) {
    const many = spec.shape.reduce((a, b) => a * b, 1);
    if (spec.clock !== "frame" || many > 64 || spec.name === "pts" || spec.name === "valid") continue;
    found[spec.name] = spec.names.length === many ? spec.names : Array.from({ length: many }, (_, i) => (many > 1 ? String(i) : spec.name));
  }
  if (found.arkit && !about.columns.find((c) => c.name === "arkit").names.length) found.arkit = about.arkit;
  if (!found.head) delete found[ANGLES];
  return found;
}

export class Player {
  /** `settings` (overlays, curves) is shared by all players; `facts(element, key, clip)` writes what lies below. */
  constructor(about, settings, facts, marked) {
    Object.assign(this, { about, settings, facts, curveNames: curveColumns(about) });
    this.root = document.querySelector("#player").content.firstElementChild.cloneNode(true);
    const part = (name) => this.root.querySelector(name);
    this.video = part("video");
    this.canvas = part(".overlay");
    this.scrub = part(".scrub");
    this.note = part(".note");
    this.parts = { frame: part(".frame"), frames: part(".frames"), time: part(".time"), play: part(".play"), strips: part(".strips") };
    this.frame = 0;
    this.loading = 0;
    this.listen(part, marked);
    new ResizeObserver(() => this.later()).observe(this.root);
  }

  listen(part, marked) {
    part(".play").addEventListener("click", () => this.toggle());
    part(".back").addEventListener("click", () => this.step(-1));
    part(".forth").addEventListener("click", () => this.step(1));
    this.scrub.addEventListener("input", () => this.seek(Number(this.scrub.value)));
    this.parts.frame.addEventListener("change", () => this.seek(Number(this.parts.frame.value)));
    part(".speed").addEventListener("change", (event) => (this.video.playbackRate = Number(event.target.value)));
    this.parts.strips.addEventListener("pointerdown", (event) => this.drag(event));
    this.parts.strips.addEventListener("pointermove", (event) => event.buttons && this.drag(event));
    this.video.addEventListener("click", () => this.toggle());
    for (const kind of ["play", "pause", "ended"]) this.video.addEventListener(kind, () => this.told());
    this.video.addEventListener("seeked", () => this.video.paused && this.shown(this.pts[this.frameAt(this.video.currentTime)]));
    this.video.addEventListener("error", () => this.say(this.key && "This browser cannot play the clip (H.264 and FLAC in mp4)."));
    for (const button of this.root.querySelectorAll("[data-mark]")) {
      button.addEventListener("click", () => marked(this.key, button.dataset.mark));
    }
    if ("requestVideoFrameCallback" in HTMLVideoElement.prototype && this.about.has_video) {
      const on = (_, shown) => {
        this.shown(shown.mediaTime);
        this.video.requestVideoFrameCallback(on);
      };
      this.video.requestVideoFrameCallback(on);
    } else {
      const on = () => {
        if (this.key) this.shown(this.video.currentTime);
        requestAnimationFrame(on);
      };
      requestAnimationFrame(on);
    }
  }

  /** Show a clip, from `frame` on. */
  async load(key, frame = 0) {
    const turn = ++this.loading;
    this.video.pause();
    this.root.dataset.state = "loading";
    this.say("");
    try {
      const [clip, data] = await Promise.all([json(clipUrl(key, "json")), this.fetch(key)]);
      if (turn !== this.loading) return;
      Object.assign(this, { key, clip, columns: data.columns, pts: data.columns.pts, frame: 0 });
    } catch (error) {
      if (turn === this.loading) this.say(error.message);
      return;
    }
    this.duration = Math.max((this.clip.end_ns - this.clip.start_ns) / 1e9, this.pts.at(-1));
    this.scrub.max = this.parts.frame.max = this.pts.length - 1;
    this.parts.frames.textContent = this.pts.length - 1;
    this.video.src = clipUrl(key, "media");
    this.video.playbackRate = Number(this.root.querySelector(".speed").value);
    this.facts(this.root, key, this.clip);
    this.drawCurves();
    this.draw(Math.min(frame, this.pts.length - 1), this.pts[0]);
    this.root.dataset.state = "coming";
    if (frame) this.seek(frame);
    await settled(this.video);
    if (turn === this.loading) this.root.dataset.state = "ready";
  }

  fetch(key) {
    const wanted = new Set([...ALWAYS, ANGLES, "mel", ...this.settings.curves.map((name) => name.split(".")[0])]);
    return arrays(clipUrl(key, `columns?names=${[...wanted].join(",")}`));
  }

  say(text) {
    this.note.textContent = text || "";
    this.note.hidden = !text;
  }

  toggle() {
    if (!this.key) return;
    if (this.video.paused) this.video.play().catch((error) => this.say(error.message));
    else this.video.pause();
  }

  told() {
    const going = !this.video.paused && !this.video.ended;
    this.parts.play.textContent = going ? "❚❚" : "▶";
    this.parts.play.setAttribute("aria-label", going ? "Pause" : "Play");
    this.root.dataset.playing = going;
  }

  step(frames) {
    this.video.pause();
    this.seek(this.frame + frames);
  }

  /** Go to a frame: to the middle of its time on the screen, so that no rounding lands on a neighbour. */
  seek(frame) {
    if (!this.pts) return;
    const to = Math.min(Math.max(Math.round(frame) || 0, 0), this.pts.length - 1);
    const until = to + 1 < this.pts.length ? this.pts[to + 1] : this.duration;
    this.video.currentTime = this.pts[to] + Math.min((until - this.pts[to]) / 2, 0.02);
    this.scrub.value = to;
    this.parts.frame.value = to;
    this.wanted = to;
    if (!this.about.has_video) this.shown(this.video.currentTime);
  }

  drag(event) {
    if (!this.pts || event.target.closest(".legend")) return;
    const box = this.parts.strips.getBoundingClientRect();
    this.seek(this.frameAt(((event.clientX - box.left) / box.width) * this.duration));
  }

  /** The frame on the screen at a time: the last one that begins by then, to half a millisecond. */
  frameAt(seconds) {
    let low = 0;
    let high = this.pts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.pts[middle] <= seconds + 5e-4) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  shown(mediaTime) {
    if (!this.pts || this.root.dataset.state === "loading") return;
    this.draw(this.frameAt(mediaTime), mediaTime);
  }

  later() {
    cancelAnimationFrame(this.waiting);
    this.waiting = requestAnimationFrame(() => {
      if (!this.key) return;
      this.drawCurves();
      this.draw(this.frame, this.drawn.mediaTime);
    });
  }

  /** What is known of a frame, in pixels of the crop. */
  known(frame) {
    const { box, lm, lm68, head } = this.columns;
    const crop = this.clip.crop;
    const points = (column) => column && toCrop(column, frame * column.shape[1] * column.shape[2], column.shape[1], column.shape[2], crop);
    const mesh = points(lm);
    const quaternion = head && head.subarray(frame * 10, frame * 10 + 4);
    const corners = box && toCrop(box, frame * box.shape[1], 2, 2, crop);
    const tip = mesh && mesh.slice(2 * NOSE_TIP, 2 * NOSE_TIP + 2);
    const middle = corners && [(corners[0] + corners[2]) / 2, (corners[1] + corners[3]) / 2];
    const at = tip ?? middle;
    const axes = quaternion && at && quaternion.every(Number.isFinite) ? { at, directions: axesOf(quaternion), length: this.clip.crop_size / 5 } : null;
    return { mesh, lines: points(lm68), box: corners, axes };
  }

  draw(frame, mediaTime) {
    this.frame = frame;
    const known = this.known(frame);
    overlay(this.canvas, this.clip.crop_size, this.settings.overlays, known);
    const values = this.values(frame);
    this.drawn = { frame, mediaTime, seconds: this.pts[frame], values, ...known };
    this.root.dataset.frame = frame;
    if (document.activeElement !== this.parts.frame) this.parts.frame.value = frame;
    if (document.activeElement !== this.scrub || !this.video.paused) this.scrub.value = frame;
    this.parts.time.textContent = `${this.pts[frame].toFixed(3)} s`;
    this.parts.strips.style.setProperty("--now", this.pts[frame] / this.duration);
    for (const [name, element, digits] of this.legend ?? []) element.textContent = fixed(values[name], digits);
    const bits = this.columns.valid ? this.columns.valid[frame] : 0;
    const present = BITS.filter((_, i) => bits & (1 << i));
    this.root.querySelector(".valid").textContent = present.length ? `valid: ${present.join(" ")}` : "nothing valid in this frame";
  }

  /** The chosen curves' values in a frame, by `column.name`. */
  values(frame) {
    return Object.fromEntries(this.settings.curves.flatMap((name) => {
      const place = this.place(name);
      return place ? [[name, place.values[frame * place.step + place.offset]]] : [];
    }));
  }

  place(name) {
    const [column, ...rest] = name.split(".");
    const values = this.columns[column];
    const offset = this.curveNames[column]?.indexOf(rest.join("."));
    if (!values || offset === undefined || offset < 0) return null;
    return { values, step: values.length / this.pts.length, offset };
  }

  /** One strip a column of the chosen curves, and one of the sound. */
  drawCurves() {
    if (!this.key) return;
    const groups = Map.groupBy ? Map.groupBy(this.settings.curves, (n) => n.split(".")[0]) : grouped(this.settings.curves);
    this.legend = [];
    const strips = [];
    let colour = 0;
    for (const [column, names] of groups) {
      const curves = names.flatMap((name) => {
        const place = this.place(name);
        return place ? [{ name, ...place, colour: COLOURS[colour++ % COLOURS.length] }] : [];
      });
      if (curves.length) strips.push(this.strip(column, curves));
    }
    const mel = this.columns.mel;
    if (mel) strips.push(this.melStrip(mel));
    this.parts.strips.querySelectorAll(".strip").forEach((old) => old.remove());
    this.parts.strips.append(...strips.map((s) => s.element));
    for (const strip of strips) strip.draw();
  }

  strip(column, curves) {
    const range = rangeOf(curves, this.pts.length);
    const limits = column === "arkit" ? [0, Math.max(Math.ceil(range[1] * 4) / 4, 0.25)] : range;
    const digits = Math.max(2 - Math.floor(Math.log10(limits[1] - limits[0])), 0);
    const { element, canvas, legend } = stripElement(column === ANGLES ? "head, degrees" : column, limits);
    for (const { name, colour } of curves) {
      const item = document.createElement("span");
      item.style.setProperty("--colour", colour);
      item.append(name.split(".").slice(1).join("."), " ", document.createElement("b"));
      legend.append(item);
      this.legend.push([name, item.lastChild, Math.min(digits, 6)]);
    }
    return { element, draw: () => plot(canvas, this.pts, this.duration, curves, limits) };
  }

  melStrip(mel) {
    const spec = this.about.columns.find((c) => c.name === "mel");
    const { element, canvas } = stripElement("mel", null);
    element.classList.add("mel");
    return { element, draw: () => spectrogram(canvas, mel, { rate: spec.rate, first: spec.first_seconds }, this.duration) };
  }

  /** After another choice of curves: fetch what is missing and draw. */
  async curvesChanged() {
    if (!this.key) return;
    const missing = this.settings.curves.some((name) => !(name.split(".")[0] in this.columns));
    if (missing) this.columns = (await this.fetch(this.key)).columns;
    this.later();
  }
}

export const defaultCurves = (about) => {
  const known = curveColumns(about);
  return CHOSEN.filter((name) => known[name.split(".")[0]]?.includes(name.split(".")[1]));
};

/** Once a video can be played, or cannot. */
function settled(video) {
  if (video.readyState >= HTMLMediaElement.HAVE_FUTURE_DATA || video.error) return Promise.resolve();
  return new Promise((done) => {
    for (const kind of ["canplay", "error", "emptied"]) video.addEventListener(kind, done, { once: true });
  });
}

function stripElement(title, limits) {
  const element = document.createElement("div");
  element.className = "strip";
  const legend = document.createElement("div");
  legend.className = "legend";
  const name = document.createElement("em");
  name.textContent = limits ? `${title}  ${shortNumber(limits[0])} … ${shortNumber(limits[1])}` : title;
  legend.append(name);
  const plot = document.createElement("div");
  plot.className = "plot";
  const canvas = document.createElement("canvas");
  plot.append(canvas);
  element.append(legend, plot);
  return { element, canvas, legend };
}

function fixed(value, digits) {
  return Number.isFinite(value) ? value.toFixed(digits) : "–";
}

function rangeOf(curves, frames) {
  let [low, high] = [Infinity, -Infinity];
  for (const { values, step, offset } of curves) {
    for (let i = 0; i < frames; i++) {
      const value = values[i * step + offset];
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (low > high) return [0, 1];
  return low === high ? [low - 1, high + 1] : [low, high];
}

function grouped(names) {
  const groups = new Map();
  for (const name of names) {
    const column = name.split(".")[0];
    groups.set(column, [...(groups.get(column) ?? []), name]);
  }
  return groups;
}
