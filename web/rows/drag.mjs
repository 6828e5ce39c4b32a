// @ts-check
/** Rows in another order by dragging their grips: a line shows where the row will be, the list scrolls at its ends. */

/** @typedef {import("./view.mjs").RowsView} RowsView */

/** How near to an end of the list it scrolls, and by how much a frame. */
const EDGE = 24;
const SPEED = 6;

/** @param {RowsView} view */
export function dragRows(view) {
  view.list.addEventListener("pointerdown", (event) => {
    const grip = /** @type {HTMLElement} */ (event.target).closest(".loom-rows-grip");
    if (event.button !== 0 || !(grip instanceof HTMLElement)) return;
    const from = view.indexOf(grip);
    if (from >= 0) drag(view, grip, from, event);
  });
}

/**
 * @param {RowsView} view
 * @param {HTMLElement} grip
 * @param {number} from
 * @param {PointerEvent} start
 */
function drag(view, grip, from, start) {
  const { list } = view;
  const rows = /** @type {HTMLElement[]} */ ([...list.children]);
  let y = start.clientY;
  let gap = from; // before which row it goes
  let moved = false;
  let frame = 0;
  start.preventDefault();
  grip.focus();
  grip.setPointerCapture(start.pointerId);

  const mark = () => {
    for (const [index, row] of rows.entries()) {
      row.toggleAttribute("data-drop-before", moved && index === gap);
      row.toggleAttribute("data-drop-after", moved && gap === rows.length && index === gap - 1);
      row.toggleAttribute("data-dragged", moved && index === from);
    }
  };
  const place = () => {
    const below = rows.findIndex((row) => {
      const box = row.getBoundingClientRect();
      return y < box.top + box.height / 2;
    });
    gap = below < 0 ? rows.length : below;
    mark();
  };
  const scroll = () => {
    const box = list.getBoundingClientRect();
    const by = y < box.top + EDGE ? -SPEED : y > box.bottom - EDGE ? SPEED : 0;
    if (by) {
      list.scrollTop += by;
      place();
    }
    frame = requestAnimationFrame(scroll);
  };
  const move = (/** @type {PointerEvent} */ event) => {
    y = event.clientY;
    if (!moved && Math.abs(y - start.clientY) < 4) return;
    if (!moved) frame = requestAnimationFrame(scroll);
    moved = true;
    place();
  };
  const end = (/** @type {boolean} */ keep) => {
    cancelAnimationFrame(frame);
    grip.removeEventListener("pointermove", move);
    grip.removeEventListener("pointerup", drop);
    grip.removeEventListener("lostpointercapture", cancel);
    grip.removeEventListener("keydown", escape, true);
    const to = gap > from ? gap - 1 : gap;
    const wanted = keep && moved && to !== from;
    moved = false;
    mark();
    if (wanted) view.actions.move(from, to, "grip");
  };
  const drop = () => end(true);
  const cancel = () => end(false);
  const escape = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    end(false);
  };
  grip.addEventListener("pointermove", move);
  grip.addEventListener("pointerup", drop);
  grip.addEventListener("lostpointercapture", cancel);
  grip.addEventListener("keydown", escape, true);
}
