// @ts-check
/** The search popup: finds LoRAs among thousands and gives those that were chosen. */

import { h, icon } from "../dom.mjs";
import { stylesheet, toast } from "../host.mjs";
import { chosen, fieldsOf } from "./choice.mjs";
import { details } from "./details.mjs";
import { emptyState, footer } from "./empty.mjs";
import { filters } from "./filters.mjs";
import { words } from "./fuzzy.mjs";
import { library } from "./library.mjs";
import { favourites, knownFavourites, markUsed, recent, setFavourite } from "./marks.mjs";
import { entryRow } from "./parts.mjs";
import { showPopup } from "./popup.mjs";
import { remember, remembered } from "./settings.mjs";
import { VirtualList } from "./virtual_list.mjs";

const ROW = 48;

/**
 * @typedef {import("../server.mjs").Entry} Entry
 *
 * @typedef {object} PickerOptions
 * @property {HTMLElement | DOMRect} anchor the popup lies beside it, and an element gets the focus back
 * @property {{ architecture: string, title: string } | null} [model] the family that the connected model is of
 * @property {boolean} [multiple] whether several may be chosen at once
 * @property {string} [selected] the name that is chosen now
 */

/** @type {Picker | null} */
let open = null;

/**
 * Lets the user choose LoRAs.
 *
 * @param {PickerOptions} options
 * @returns {Promise<Entry[] | null>} null when nothing was chosen
 */
export function openPicker(options) {
  open?.close(null);
  return new Promise((resolve) => {
    open = new Picker(options, resolve);
  });
}

class Picker {
  /** @type {import("./filters.mjs").Filter} */
  filter;
  /** Names in the order in which they were marked. @type {Set<string>} */
  marked = new Set();
  query = "";
  /** What went wrong beside the list itself: favourites that could not be kept. */
  fault = "";
  /** What the filters were last made of. @type {{ entries: unknown, filter: unknown } | null} */
  offered = null;
  /** The next drawing of the details. */
  frame = 0;

  /**
   * @param {PickerOptions} options
   * @param {(entries: Entry[] | null) => void} resolve
   */
  constructor({ anchor, model = null, multiple = false, selected = "" }, resolve) {
    stylesheet("picker/picker.css");
    stylesheet("picker/details.css");
    this.model = model?.architecture ? model : null;
    this.multiple = multiple;
    this.selected = selected;
    this.resolve = resolve;
    const { base, sort } = remembered();
    this.filter = { tab: "all", folder: "", sort, base: base === "model" ? (this.model?.architecture ?? "") : base };

    this.list = new VirtualList({
      label: "LoRAs",
      height: ROW,
      row: (/** @type {Entry} */ entry) => entryRow(entry, { wanted: words(this.query), multiple }),
      refresh: (row, entry, active) => this.refreshRow(row, entry, active),
      moved: () => this.moved(),
    });
    this.search = h("input", {
      class: "loom-input loom-picker-search",
      type: "search",
      role: "combobox",
      placeholder: "Search LoRAs",
      spellcheck: "false",
      autocomplete: "off",
      "aria-label": "Search LoRAs",
      "aria-expanded": "true",
      "aria-autocomplete": "list",
      "aria-controls": this.list.id,
    });
    this.filters = filters((changes) => this.change(changes));
    this.details = h("aside", { class: "loom-picker-details", "aria-label": "The LoRA that is active in the list" });
    this.empty = h("div", { class: "loom-picker-empty", hidden: true });
    this.note = h("div", { class: "loom-picker-note", hidden: true });
    this.footer = footer({ multiple, add: () => this.choose(), hint: multiple ? "Ctrl+Enter marks several" : "" });
    this.element = this.layout();
    this.listen();

    this.end = showPopup(this.element, { anchor, dismissed: () => this.close(null) });
    this.unsubscribe = library.subscribe(() => this.update());
    this.update(selected);
    this.list.move(this.list.active);
    this.search.focus({ preventScroll: true });
    // What changed since; the first time this is the question that is already under way.
    if (library.loaded || library.error) void library.refresh();
    favourites().then(
      () => this.update(),
      (fault) => this.failed(`Favourites cannot be read: ${fault.message}`),
    );
    this.warm = setTimeout(() => this.prepare([...library.entries.values()]), 50);
  }

  /** Makes the texts that are searched ahead of the first letter, a part at a time. @param {Entry[]} entries */
  prepare(entries) {
    entries.splice(0, 400).forEach((entry) => fieldsOf(entry));
    if (entries.length) this.warm = setTimeout(() => this.prepare(entries));
  }

  layout() {
    const { tabs, base, sort, folders } = this.filters;
    const refresh = { class: "loom-button loom-icon-only", type: "button", title: "Look for new files" };
    const close = { class: "loom-button loom-icon-only", type: "button", title: "Close" };
    return h(
      "div",
      { class: "loom loom-picker", role: "dialog", "aria-label": "Choose a LoRA" },
      h(
        "div",
        { class: "loom-picker-top" },
        h("label", { class: "loom-picker-field" }, icon("search"), this.search),
        h("button", { ...refresh, "aria-label": "Refresh", on: { click: () => this.refresh() } }, icon("refresh")),
        h("button", { ...close, "aria-label": "Close", on: { click: () => this.close(null) } }, icon("close")),
      ),
      h(
        "div",
        { class: "loom-picker-filters" },
        h("div", { class: "loom-picker-tabs", role: "group", "aria-label": "Which LoRAs" }, tabs),
        base,
        sort,
      ),
      h(
        "div",
        { class: "loom-picker-body" },
        folders,
        h("div", { class: "loom-picker-middle" }, this.note, this.list.element, this.empty),
        this.details,
      ),
      this.footer.element,
    );
  }

  listen() {
    this.search.addEventListener("input", () => {
      this.query = this.search.value;
      this.list.forget();
      this.update("");
    });
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.list.element.addEventListener("mousedown", (event) => event.preventDefault());
    this.list.element.addEventListener("click", (event) => this.clicked(event));
    this.list.element.addEventListener("pointermove", (event) => {
      // Only when the pointer itself moves: rows that pass below it while scrolling are not meant.
      if (!event.movementX && !event.movementY) return;
      const found = this.list.at(event.target);
      if (found) this.list.move(found.index);
    });
  }

  /** @param {Partial<import("./filters.mjs").Filter>} changes */
  change(changes) {
    this.filter = { ...this.filter, ...changes };
    const { base, sort } = this.filter;
    const follows = this.model ? base === this.model.architecture : remembered().base === "model" && !base;
    remember({ base: follows ? "model" : base, sort });
    this.update("");
  }

  clear() {
    this.query = this.search.value = "";
    this.list.forget();
    this.change({ tab: "all", folder: "", base: "" });
    this.search.focus();
  }

  /**
   * The list as filters, query and index have it now.
   *
   * @param {string} [active] a name; "": another list begins at its first row
   */
  update(active = this.list.activeItem?.name) {
    const { tab, folder, base, sort } = this.filter;
    const only = tab === "all" ? null : tab === "recent" ? recent() : knownFavourites();
    const { entries } = library;
    const found = chosen(entries.values(), { query: this.query, folder, base, only, sort });
    const index = active ? found.findIndex(({ name }) => name === active) : 0;
    this.refreshFilters(entries);
    this.list.show(found, Math.max(0, index), active === "");

    const situation = { library, filter: this.filter, query: this.query, found: found.length };
    const empty = emptyState(situation, { refresh: () => this.refresh(), clear: () => this.clear() });
    this.empty.replaceChildren(...(empty ?? []));
    this.empty.hidden = !empty;
    this.list.element.hidden = Boolean(empty);
    this.showNote();
    this.footer.update({ library, found: found.length, marked: this.marked.size, fault: this.fault });
  }

  /** What the filters offer follows from the index and from what is set; a query changes nothing of it. */
  refreshFilters(/** @type {ReadonlyMap<string, Entry>} */ entries) {
    if (this.offered?.entries === entries && this.offered.filter === this.filter) return;
    this.offered = { entries, filter: this.filter };
    this.filters.refresh(this.filter, entries, this.model);
  }

  /** Says when the list is narrowed to what fits the model, with the way out. */
  showNote() {
    const narrowed = this.model && this.filter.base === this.model.architecture && library.entries.size > 0;
    this.note.hidden = !narrowed;
    if (!narrowed || this.note.firstChild) return;
    const all = { class: "loom-button", type: "button", on: { click: () => this.change({ base: "" }) } };
    this.note.append(
      h("span", { class: "loom-cut" }, `For the connected model: ${this.model?.title}`),
      h("button", all, "Show all"),
    );
  }

  moved() {
    const { activeId, activeItem } = this.list;
    if (activeId) this.search.setAttribute("aria-activedescendant", activeId);
    else this.search.removeAttribute("aria-activedescendant");
    // Once a frame is enough, and typing does not wait for it.
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.showDetails(activeItem));
  }

  /** @param {Entry | undefined} activeItem */
  showDetails(activeItem) {
    const name = activeItem?.name ?? "";
    const focused = this.detailsButtons.findIndex((one) => one === document.activeElement);
    this.details.hidden = !activeItem;
    this.details.replaceChildren(
      ...details(activeItem, {
        favourite: knownFavourites().has(name),
        verb: this.multiple ? "Add" : "Choose",
        choose: () => activeItem && this.finish(this.multiple && this.marked.size ? this.withMarked(name) : [name]),
        star: () => void this.star(name),
        about: () => void this.about(name),
      }).filter((one) => one !== false),
    );
    this.detailsButtons[focused]?.focus();
  }

  /** They are made anew with another entry; the one that had the focus has it again. */
  get detailsButtons() {
    return [...this.details.querySelectorAll("button")];
  }

  /**
   * @param {HTMLElement} row
   * @param {Entry} entry
   * @param {boolean} active
   */
  refreshRow(row, entry, active) {
    row.classList.toggle("loom-active", active);
    row.classList.toggle("loom-starred", knownFavourites().has(entry.name));
    const chosenNow = this.multiple ? this.marked.has(entry.name) : entry.name === this.selected;
    row.setAttribute("aria-selected", String(chosenNow));
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.isComposing) return;
    if (event.key === "Escape") {
      event.preventDefault();
      this.close(null);
    } else if (event.key === "Tab") this.keepFocus(event);
    else if (event.target === this.search && this.searchKey(event)) event.preventDefault();
  }

  /**
   * @param {KeyboardEvent} event
   * @returns {boolean} whether it was for the list
   */
  searchKey({ key, ctrlKey, metaKey, shiftKey }) {
    const { list } = this;
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: list.page, PageUp: -list.page, Home: -Infinity, End: Infinity };
    if (key in moves && !shiftKey) list.move(list.active + moves[/** @type {keyof typeof moves} */ (key)]);
    else if (key === "Enter" && (ctrlKey || metaKey) && this.multiple) {
      this.mark(list.activeItem?.name);
      list.move(list.active + 1);
    } else if (key === "Enter") this.choose();
    else return false;
    return true;
  }

  /** Tab goes around inside the popup. @param {KeyboardEvent} event */
  keepFocus(event) {
    const all = [...this.element.querySelectorAll("input, button, select")].filter(
      (one) => one instanceof HTMLElement && !one.hasAttribute("disabled") && one.offsetParent !== null,
    );
    const [from, to] = event.shiftKey ? [all[0], all.at(-1)] : [all.at(-1), all[0]];
    if (event.target !== from || !(to instanceof HTMLElement)) return;
    event.preventDefault();
    to.focus();
  }

  /** @param {MouseEvent} event */
  clicked(event) {
    const found = this.list.at(event.target);
    if (!found) return;
    const { name } = found.item;
    const part = event.target instanceof Element && event.target.closest("[data-act]");
    const act = part instanceof HTMLElement ? part.dataset.act : "";
    this.list.move(found.index);
    if (act === "star") void this.star(name);
    else if (this.multiple && (act === "check" || event.ctrlKey || event.metaKey || this.marked.size)) this.mark(name);
    else this.finish([name]);
  }

  /** @param {string | undefined} name */
  mark(name) {
    if (!name) return;
    if (!this.marked.delete(name)) this.marked.add(name);
    this.list.update();
    this.footer.update({ library, found: this.list.items.length, marked: this.marked.size, fault: this.fault });
  }

  /** @param {string} name */
  async star(name) {
    const done = setFavourite(name, !knownFavourites().has(name));
    try {
      await Promise.all([favourites(), done]);
      this.fault = "";
    } catch (fault) {
      this.failed(`Favourites cannot be kept: ${/** @type {Error} */ (fault).message}`);
    }
    this.update();
  }

  /** @param {string} name */
  async about(name) {
    const { openAbout } = await import("../about/about.mjs");
    openAbout(name, {});
  }

  /** Asks the server to look again. */
  refresh() {
    library.look();
    this.search.focus();
  }

  /** @param {string} text */
  failed(text) {
    this.fault = text;
    this.update();
  }

  /** @param {string} name */
  withMarked(name) {
    return [...new Set([...this.marked, name])];
  }

  /** Takes what is marked, or else the active one. */
  choose() {
    const name = this.list.activeItem?.name;
    if (this.marked.size) this.finish([...this.marked]);
    else if (name) this.finish([name]);
  }

  /** @param {string[]} names */
  finish(names) {
    const entries = names.flatMap((name) => library.entry(name) ?? []);
    if (entries.length < names.length) toast("warn", "A file that was marked is gone", "It was removed or renamed.");
    if (!entries.length) return;
    markUsed(names);
    this.close(entries);
  }

  /** @param {Entry[] | null} entries */
  close(entries) {
    if (open !== this) return;
    open = null;
    clearTimeout(this.warm);
    cancelAnimationFrame(this.frame);
    this.unsubscribe();
    this.list.close();
    this.end();
    this.resolve(entries);
  }
}
