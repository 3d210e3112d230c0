// The list of containers. Only the rows that can be seen exist: a thousand containers cost what thirty do.

import { byId, el, setAttribute, setText } from "./dom.js";
import { count } from "./format.js";
import { hashOf, Row } from "./row.js";
import { rowsOf, SORTS } from "./rows.js";

const ROW_HEIGHT = 48; // as in style.css
const SPARE = 3; // rows made above and below what is seen

const KEYS = {
  ArrowDown: (at) => at + 1,
  ArrowUp: (at) => at - 1,
  PageDown: (at, page) => at + page,
  PageUp: (at, page) => at - page,
  Home: () => 0,
  End: () => Infinity,
};

export class List {
  view = { search: "", sort: "cpu", descending: true, group: "none", closed: new Set() };
  #rows = [];
  #pool = [];
  #chosen = "";

  /** `store`: what is shown. `onView`: called when sorting was chosen in the head. */
  constructor(store, onView) {
    this.store = store;
    this.onView = onView;
    this.grid = byId("grid");
    this.body = byId("rows");
    this.#makeHead();
    this.grid.addEventListener("scroll", () => this.draw(), { passive: true });
    this.grid.addEventListener("keydown", (event) => this.#key(event));
    this.body.addEventListener("click", (event) => this.#click(event));
    new ResizeObserver(() => this.draw()).observe(this.grid);
  }

  /** Rows anew: other containers, other numbers, another order. */
  update() {
    const { rows, passing } = rowsOf(this.store.containers.values(), this.view);
    this.#rows = rows;
    const all = this.store.containers.size;
    setText(byId("shown"), passing === all ? `${count(all)}` : `${count(passing)} of ${count(all)}`);
    this.#tellEmpty(all, passing);
    this.body.style.height = `${rows.length * ROW_HEIGHT}px`;
    setAttribute(this.grid, "aria-rowcount", rows.length + 1);
    this.draw();
  }

  sortBy(sort, descending = SORTS[sort].descending) {
    Object.assign(this.view, { sort, descending });
    for (const head of this.heads) {
      setAttribute(head, "aria-sort", head.dataset.sort === sort ? (descending ? "descending" : "ascending") : "none");
    }
    this.update();
  }

  focus() {
    this.grid.focus();
  }

  draw() {
    const seen = Math.ceil(this.grid.clientHeight / ROW_HEIGHT) + 1;
    const first = Math.max(0, Math.min(Math.floor(this.grid.scrollTop / ROW_HEIGHT) - SPARE, this.#rows.length - 1));
    const last = Math.min(this.#rows.length, first + seen + 2 * SPARE);
    for (let place = 0; place < Math.max(this.#pool.length, last - first); place++) {
      const at = first + place;
      const row = (this.#pool[place] ??= this.#makeRow(place));
      row.node.hidden = at >= last;
      if (row.node.hidden) {
        row.key = "";
        continue;
      }
      row.node.style.transform = `translateY(${at * ROW_HEIGHT}px)`;
      setAttribute(row.node, "aria-rowindex", at + 2);
      row.fill(this.#rows[at]);
    }
    this.#mark();
  }

  #makeHead() {
    const head = byId("head");
    this.heads = Object.entries(SORTS)
      .filter(([sort]) => sort !== "oom")
      .map(([sort, { title }]) => {
        const button = el("button", { type: "button" }, title);
        button.addEventListener("click", () => {
          this.sortBy(sort, this.view.sort === sort ? !this.view.descending : undefined);
          this.onView();
        });
        return el(`div.cell.c-${sort}`, { role: "columnheader", "data-sort": sort }, button);
      });
    head.append(...this.heads);
  }

  #makeRow(place) {
    const row = new Row(place);
    this.body.append(row.node);
    return row;
  }

  #tellEmpty(all, passing) {
    byId("empty").hidden = all > 0 || !this.store.loaded;
    byId("nothing").hidden = all === 0 || passing > 0;
    byId("loading").hidden = this.store.loaded || all > 0;
  }

  #mark() {
    let active = null;
    for (const row of this.#pool) {
      const isChosen = row.key !== "" && row.key === this.#chosen;
      row.node.classList.toggle("chosen", isChosen);
      setAttribute(row.node, "aria-selected", isChosen);
      if (isChosen) active = row.node.id;
    }
    setAttribute(this.grid, "aria-activedescendant", active);
  }

  #choose(at) {
    const place = Math.max(0, Math.min(at, this.#rows.length - 1));
    this.#chosen = this.#rows[place]?.key ?? "";
    const top = place * ROW_HEIGHT;
    const room = this.grid.clientHeight - byId("head").offsetHeight;
    if (top < this.grid.scrollTop) this.grid.scrollTop = top;
    else if (top + ROW_HEIGHT > this.grid.scrollTop + room) this.grid.scrollTop = top + ROW_HEIGHT - room;
    this.draw();
  }

  #key(event) {
    if (event.target !== this.grid || event.ctrlKey || event.altKey || event.metaKey) return;
    const at = this.#rows.findIndex((row) => row.key === this.#chosen);
    const page = Math.max(1, Math.floor(this.grid.clientHeight / ROW_HEIGHT) - 2);
    if (KEYS[event.key]) this.#choose(at < 0 && event.key !== "End" ? 0 : KEYS[event.key](at, page));
    else if (event.key === "Enter" && at >= 0) this.#open(this.#rows[at]);
    else if (event.key === "ArrowRight" && this.#rows[at]?.isOpen === false) this.#open(this.#rows[at]);
    else if (event.key === "ArrowLeft" && this.#rows[at]?.isOpen) this.#open(this.#rows[at]);
    else return;
    event.preventDefault();
  }

  #click(event) {
    const node = event.target.closest(".row");
    const row = this.#rows.find(({ key }) => key === this.#pool.find((each) => each.node === node)?.key);
    if (!row || event.ctrlKey || event.metaKey || event.shiftKey) return; // a link's own ways to be opened
    event.preventDefault();
    this.#chosen = row.key;
    this.#open(row);
    this.#mark();
  }

  #open(row) {
    if (row.container) {
      location.hash = hashOf(row.container.id);
      return;
    }
    if (row.isOpen) this.view.closed.add(row.key);
    else this.view.closed.delete(row.key);
    this.update();
  }
}
