// Annotations drawn over a frame, and curves over time.

export const COLOURS = ["#ff8a5c", "#4db4f0", "#62cf85", "#d285dc", "#f0c04a", "#9aa7b8", "#f26d8f", "#5fd6cf"];
const AXES = ["#ff5a4f", "#5ed16a", "#5c92ff"];
const BOX = "#ffd640";
const MESH = "#60f0c4";

/** iBUG's 68 points as lines: jaw, brows, nose, eyes, lips; closed ones end where they began. */
const FACE_LINES = [
  [0, 16], [17, 21], [22, 26], [27, 30], [31, 35], [36, 41, true], [42, 47, true], [48, 59, true], [60, 67, true],
];

/** Fit a canvas to its place on the page, in device pixels; gives its context and size. */
export function fitted(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.max(Math.round(canvas.clientWidth * ratio), 1);
  const height = Math.max(Math.round(canvas.clientHeight * ratio), 1);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  return { context: canvas.getContext("2d"), width, height, ratio };
}

/** Source pixels to crop pixels: `matrix` is 2 x 3; `axes` is the length of a point in `points`. */
export function toCrop(points, first, count, axes, matrix) {
  const [[a, b, c], [d, e, f]] = matrix;
  const mapped = new Float32Array(2 * count);
  for (let i = 0; i < count; i++) {
    const x = points[first + i * axes];
    const y = points[first + i * axes + 1];
    mapped[2 * i] = a * x + b * y + c;
    mapped[2 * i + 1] = d * x + e * y + f;
  }
  return mapped;
}

/** The head's axes as the columns of R in pixels: to image right and down; quaternion w x y z, head to camera. */
export function axesOf([w, x, y, z]) {
  const columns = [
    [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)],
    [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)],
    [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)],
  ];
  return columns.map(([right, up, near], axis) => ({ axis, right, down: -up, near }));
}

/** Draw what is known of one frame, in crop pixels, onto a canvas over it. */
export function overlay(canvas, side, shown, { mesh, lines, box, axes }) {
  const { context, width, ratio } = fitted(canvas);
  context.clearRect(0, 0, canvas.width, canvas.height);
  const scale = width / side;
  if (shown.mesh && mesh) dots(context, mesh, scale, ratio);
  if (shown.lines && lines) faceLines(context, lines, scale, ratio);
  if (shown.box && box && box.every(Number.isFinite)) {
    context.strokeStyle = BOX;
    context.lineWidth = 1.5 * ratio;
    context.strokeRect(box[0] * scale, box[1] * scale, (box[2] - box[0]) * scale, (box[3] - box[1]) * scale);
  }
  if (shown.axes && axes) {
    for (const { axis, right, down } of [...axes.directions].sort((a, b) => a.near - b.near)) {
      line(context, axes.at, [axes.at[0] + right * axes.length, axes.at[1] + down * axes.length], scale, AXES[axis], 3 * ratio);
    }
  }
}

function dots(context, points, scale, ratio) {
  context.fillStyle = MESH;
  const size = (points.length > 400 ? 2 : 4) * ratio;
  for (let i = 0; i < points.length; i += 2) {
    if (Number.isFinite(points[i])) context.fillRect(points[i] * scale - size / 2, points[i + 1] * scale - size / 2, size, size);
  }
}

function faceLines(context, points, scale, ratio) {
  context.strokeStyle = "#ffffffd0";
  context.lineWidth = 1.25 * ratio;
  for (const [first, last, closed] of FACE_LINES) {
    context.beginPath();
    for (let i = first; i <= last; i++) context.lineTo(points[2 * i] * scale, points[2 * i + 1] * scale);
    if (closed) context.closePath();
    context.stroke();
  }
}

function line(context, from, to, scale, colour, width) {
  if (![...from, ...to].every(Number.isFinite)) return;
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.lineCap = "round";
  context.beginPath();
  context.moveTo(from[0] * scale, from[1] * scale);
  context.lineTo(to[0] * scale, to[1] * scale);
  context.stroke();
}

/** Curves over time. `curves`: [{values, step, offset, colour}]; a value that is NaN leaves a gap. */
export function plot(canvas, seconds, duration, curves, [low, high]) {
  const { context, width, height, ratio } = fitted(canvas);
  context.clearRect(0, 0, width, height);
  const pad = 4 * ratio;
  const y = (value) => height - pad - ((value - low) / (high - low)) * (height - 2 * pad);
  const style = getComputedStyle(canvas);
  context.strokeStyle = style.getPropertyValue("--line");
  context.lineWidth = ratio;
  for (const value of [low, high, ...(low < 0 && high > 0 ? [0] : [])]) {
    context.beginPath();
    context.moveTo(0, y(value));
    context.lineTo(width, y(value));
    context.stroke();
  }
  context.lineWidth = 1.5 * ratio;
  context.lineJoin = "round";
  for (const { values, step, offset, colour } of curves) {
    context.strokeStyle = colour;
    context.beginPath();
    let down = false;
    for (let i = 0; i < seconds.length; i++) {
      const value = values[i * step + offset];
      if (!Number.isFinite(value)) {
        down = false;
        continue;
      }
      const x = (seconds[i] / duration) * width;
      context[down ? "lineTo" : "moveTo"](x, y(Math.min(Math.max(value, low), high)));
      down = true;
    }
    context.stroke();
  }
}

/** Rows of a spectrogram as a picture, low bands at the bottom. Row i is centred at first + i / rate seconds. */
export function spectrogram(canvas, rows, { rate, first }, duration) {
  const { context, width, height } = fitted(canvas);
  context.clearRect(0, 0, width, height);
  const [count, bands] = rows.shape;
  if (!count) return;
  const image = new ImageData(count, bands);
  const known = Float32Array.from(rows).filter(Number.isFinite).sort();
  const low = known[Math.floor(known.length * 0.02)];
  const high = known[Math.ceil(known.length * 0.995) - 1];
  for (let i = 0; i < count; i++) {
    for (let band = 0; band < bands; band++) {
      const share = Math.min(Math.max((rows[i * bands + band] - low) / (high - low || 1), 0), 1);
      image.data.set(heat(share), 4 * ((bands - 1 - band) * count + i));
    }
  }
  const small = new OffscreenCanvas(count, bands);
  small.getContext("2d").putImageData(image, 0, 0);
  const left = ((first - 0.5 / rate) / duration) * width;
  context.drawImage(small, left, 0, (count / rate / duration) * width, height);
}

function heat(share) {
  const stops = [[16, 18, 32], [64, 40, 120], [190, 60, 110], [250, 150, 60], [255, 240, 180]];
  const at = share * (stops.length - 1);
  const i = Math.min(Math.floor(at), stops.length - 2);
  return [0, 1, 2].map((c) => stops[i][c] + (at - i) * (stops[i + 1][c] - stops[i][c])).concat(255);
}
