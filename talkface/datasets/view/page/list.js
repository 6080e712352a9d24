// A list that holds only the rows in sight, however many there are.

const SPARE = 6;

export class VirtualList {
  /** `fill(element, item)` writes a row; `choose(item)` is told what was clicked or moved to. */
  constructor(root, rowHeight, fill, choose) {
    Object.assign(this, { root, rowHeight, fill, choose, items: [], at: -1 });
    this.space = document.createElement("div");
    this.space.className = "space";
    root.replaceChildren(this.space);
    this.rows = new Map();
    root.addEventListener("scroll", () => this.later());
    root.addEventListener("click", (event) => {
      const row = event.target.closest("[data-index]");
      if (row) this.select(Number(row.dataset.index));
    });
    new ResizeObserver(() => this.later()).observe(root);
  }

  later() {
    this.waiting ??= requestAnimationFrame(() => {
      this.waiting = undefined;
      this.draw();
    });
  }

  /** Show other items; `at` is the index of the chosen one. */
  show(items, at) {
    this.items = items;
    this.at = at;
    this.space.style.height = `${items.length * this.rowHeight}px`;
    for (const element of this.rows.values()) element.remove();
    this.rows.clear();
    this.draw();
  }

  refresh() {
    for (const [index, element] of this.rows) this.write(element, index);
  }

  draw() {
    const first = Math.max(Math.floor(this.root.scrollTop / this.rowHeight) - SPARE, 0);
    const last = Math.min(Math.ceil((this.root.scrollTop + this.root.clientHeight) / this.rowHeight) + SPARE, this.items.length);
    for (const [index, element] of this.rows) {
      if (index < first || index >= last) {
        element.remove();
        this.rows.delete(index);
      }
    }
    for (let index = first; index < last; index++) {
      if (this.rows.has(index)) continue;
      const element = document.createElement("div");
      element.className = "row";
      element.setAttribute("role", "option");
      element.dataset.index = index;
      element.style.transform = `translateY(${index * this.rowHeight}px)`;
      this.rows.set(index, element);
      this.write(element, index);
      this.space.append(element);
    }
  }

  write(element, index) {
    element.setAttribute("aria-selected", String(index === this.at));
    this.fill(element, this.items[index]);
  }

  select(index, quietly = false) {
    if (index < 0 || index >= this.items.length) return;
    this.at = index;
    const top = index * this.rowHeight;
    if (top < this.root.scrollTop) this.root.scrollTop = top;
    const bottom = top + this.rowHeight - this.root.clientHeight;
    if (bottom > this.root.scrollTop) this.root.scrollTop = bottom;
    this.draw();
    for (const [i, element] of this.rows) element.setAttribute("aria-selected", String(i === index));
    if (!quietly) this.choose(this.items[index]);
  }
}
