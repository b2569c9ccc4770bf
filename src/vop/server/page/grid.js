// A list of any length in the shape of the results: only the cards near the window exist.

const PAGE = 100; // items of a request
const SPARE = 2; // rows above and below the window
const PAGES_KEPT = 40;

export class Grid {
  #total = 0;
  #pages = new Map(); // number of the page -> its items, or the promise of them
  #shape = { columns: 1, row: 240, gap: 0 };
  #shown = new Map(); // number of the item -> its card
  #waiting = 0;
  #stopped = false;
  #failed = false; // no further requests until `retry`

  // load(offset, limit): promises {items, total}; make(item): a card
  constructor({ list, load, make, failed }) {
    this.list = list;
    this.load = load;
    this.make = make;
    this.failed = failed;
    this.#watch = () => this.#later();
    addEventListener("scroll", this.#watch, { passive: true });
    this.resized = new ResizeObserver(() => this.#measure());
    this.resized.observe(list);
  }

  #watch;

  async start() {
    await this.#page(0);
    this.#draw();
    this.#measure();
  }

  get isComplete() {
    return !this.#failed;
  }

  async retry() {
    this.#failed = false;
    await this.start();
  }

  get total() {
    return this.#total;
  }

  stop() {
    this.#stopped = true;
    removeEventListener("scroll", this.#watch);
    this.resized.disconnect();
    cancelAnimationFrame(this.#waiting);
  }

  #later() {
    cancelAnimationFrame(this.#waiting);
    this.#waiting = requestAnimationFrame(() => this.#draw());
  }

  // Reads the number of columns and the height of a row from the layout.
  #measure() {
    const card = this.list.querySelector(".card:not(.empty)");
    if (!card) return;
    const style = getComputedStyle(this.list);
    const columns = style.gridTemplateColumns.split(" ").length;
    const gap = parseFloat(style.rowGap);
    const row = card.getBoundingClientRect().height + gap;
    const same = columns === this.#shape.columns && Math.abs(row - this.#shape.row) < 0.5;
    this.#shape = { columns, row, gap };
    if (!same) this.#draw();
  }

  // Shows the cards of the rows near the window; the padding of the list stands for the others.
  #draw() {
    if (this.#stopped) return;
    const { columns, row } = this.#shape;
    const rows = Math.ceil(this.#total / columns);
    const above = -this.list.getBoundingClientRect().top;
    const first = Math.max(0, Math.min(Math.floor(above / row) - SPARE, rows - 1));
    const last = Math.min(rows, Math.ceil((above + innerHeight) / row) + SPARE);
    const [from, to] = [first * columns, Math.min(Math.max(last, first + 1) * columns, this.#total)];
    const cards = [];
    for (let number = from; number < to; number++) cards.push(this.#card(number));
    for (const [number, card] of this.#shown) {
      if (number < from || number >= to) {
        card.remove();
        this.#shown.delete(number);
      }
    }
    this.list.style.paddingTop = `${first * row}px`;
    this.list.style.paddingBottom = `${Math.max(0, rows - Math.ceil(to / columns)) * row}px`;
    cards.forEach((card, place) => {
      if (this.list.children[place] !== card) this.list.insertBefore(card, this.list.children[place] ?? null);
    });
  }

  // Returns the card of an item: the one that is shown, a new one, or an empty one until the item has arrived.
  #card(number) {
    const there = this.#shown.get(number);
    if (there && !there.empty) return there;
    const items = this.#pages.get(Math.floor(number / PAGE));
    const item = Array.isArray(items) ? items[number % PAGE] : undefined;
    if (!item && !this.#failed) this.#page(Math.floor(number / PAGE)).then(() => this.#later());
    if (!item && there) return there;
    there?.remove();
    const card = item ? this.make(item) : emptyCard();
    this.#shown.set(number, card);
    return card;
  }

  async #page(number) {
    const there = this.#pages.get(number);
    if (there) return there;
    const loading = this.#request(number);
    this.#pages.set(number, loading);
    return loading;
  }

  async #request(number) {
    try {
      const { items, total } = await this.load(number * PAGE, PAGE);
      this.#total = total;
      this.#pages.set(number, items);
      for (const old of this.#pages.keys()) {
        if (this.#pages.size <= PAGES_KEPT) break;
        if (old !== number) this.#pages.delete(old);
      }
    } catch (error) {
      this.#pages.delete(number);
      this.#failed = true;
      if (!this.#stopped) this.failed(error);
    }
  }
}

function emptyCard() {
  const card = document.createElement("li");
  card.className = "card empty";
  card.empty = true;
  card.append(Object.assign(document.createElement("span"), { className: "film" }));
  return card;
}
