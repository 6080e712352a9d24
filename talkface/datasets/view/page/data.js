// What the server sends: JSON, and arrays behind a JSON header (see `packed` in clips.py).

const TYPES = {
  f4: Float32Array,
  f8: Float64Array,
  u1: Uint8Array,
  u4: Uint32Array,
  i4: Int32Array,
};

async function answer(response) {
  if (response.ok) return response;
  const text = await response.text();
  let said = text;
  try {
    said = JSON.parse(text).detail ?? text;
  } catch {
    // Not JSON: the text says it.
  }
  throw new Error(typeof said === "string" ? said : JSON.stringify(said));
}

export async function json(path) {
  return (await answer(await fetch(path))).json();
}

export async function post(path, body) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  return (await answer(response)).json();
}

export async function arrays(path) {
  return unpack(await (await answer(await fetch(path))).arrayBuffer());
}

/** Header fields, and `columns`: name to a typed array with `shape`, laid over the buffer. */
export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const columns = {};
  for (const { name, dtype, shape, offset } of header.arrays) {
    const size = shape.reduce((a, b) => a * b, 1);
    columns[name] = Object.assign(new TYPES[dtype](buffer, 4 + length + offset, size), { shape });
  }
  return { ...header, columns };
}

export function clipUrl(key, what) {
  return `/api/clips/${encodeURIComponent(key)}/${what}`;
}

/** Rows in columns: numbers as typed arrays, text as codes into words. */
export class Table {
  constructor({ rows, words, columns }) {
    this.rows = rows;
    this.words = words;
    this.columns = columns;
    this.rowOf = new Map();
    if (words.key) for (let row = 0; row < rows; row++) this.rowOf.set(this.text("key", row), row);
    this.lowered = {};
  }

  text(name, row) {
    return this.words[name][this.columns[name][row]];
  }

  number(name, row) {
    return this.columns[name][row];
  }

  /** The different words of a column that occur, in order; the empty one is left out. */
  choices(name) {
    return (this.words[name] ?? []).filter((word) => word !== "").sort();
  }

  /** For each word of a column whether it holds all of the lower-case `terms`. */
  wordsWith(name, term) {
    this.lowered[name] ??= this.words[name].map((word) => word.toLowerCase());
    return this.lowered[name].map((word) => word.includes(term));
  }
}

/** Rows in which every term of a search stands somewhere in the named columns: 1 or 0 a row. */
export function search(table, text, names) {
  const found = new Uint8Array(table.rows).fill(1);
  for (const term of text.toLowerCase().split(/\s+/).filter(Boolean)) {
    const hits = names.filter((n) => n in table.words).map((n) => [table.columns[n], table.wordsWith(n, term)]);
    for (let row = 0; row < table.rows; row++) {
      if (found[row] && !hits.some(([codes, has]) => has[codes[row]])) found[row] = 0;
    }
  }
  return found;
}

export function inside(value, bounds) {
  return Number.isNaN(value) || ((bounds.min === undefined || value >= bounds.min) && (bounds.max === undefined || value <= bounds.max));
}

/** Why a row is hidden, in words; empty where it is shown. Marks go before thresholds, what is missing passes. */
export function whyHidden(table, row, selection) {
  const mark = selection.marks[table.text("key", row)];
  if (mark === "drop") return ["marked drop"];
  if (mark === "keep") return [];
  return Object.entries(selection.thresholds)
    .filter(([name, bounds]) => name in table.columns && !inside(table.number(name, row), bounds))
    .map(([name, bounds]) => {
      const value = table.number(name, row);
      const low = bounds.min !== undefined && value < bounds.min;
      return `${name} ${shortNumber(value)} is ${low ? "below" : "above"} ${shortNumber(low ? bounds.min : bounds.max)}`;
    });
}

export function shortNumber(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const digits = Math.max(0, 3 - Math.floor(Math.log10(Math.abs(value))) - 1);
  return Math.abs(value) >= 1e6 || Math.abs(value) < 1e-4 ? value.toExponential(2) : String(+value.toFixed(Math.min(digits, 6)));
}
