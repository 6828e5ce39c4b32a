// @ts-check
/** An element that floats near another, in the browser's top layer: over canvas and dialogs, not cut by any of them. */

const EDGE = 8;

/** What the host listens to on its canvas or document, and what is none of its business when it happens in a popup. */
const OURS = [
  ...["keydown", "keyup", "keypress", "copy", "cut", "paste", "wheel", "contextmenu", "dblclick", "click"],
  ...["pointerdown", "pointerup", "pointermove", "mousedown", "mouseup", "mousemove", "dragover", "drop"],
];

/**
 * Keeps events of an element from the host's canvas and shortcuts.
 *
 * @param {HTMLElement} element
 */
export function keepEvents(element) {
  for (const type of OURS) element.addEventListener(type, (event) => event.stopPropagation(), { passive: true });
}

/**
 * Shows an element below an anchor, or above it where there is more room, inside the window.
 *
 * @param {HTMLElement} element
 * @param {object} options
 * @param {HTMLElement | DOMRect} options.anchor gets the focus back when it is an element
 * @param {() => void} options.dismissed called when somebody presses a button of the mouse elsewhere
 * @returns {() => void} takes it away
 */
export function showPopup(element, { anchor, dismissed }) {
  const before = document.activeElement;
  element.popover = "manual";
  keepEvents(element);
  document.body.append(element);
  element.showPopover();

  const place = () => {
    const box = anchor instanceof Element ? anchor.getBoundingClientRect() : anchor;
    const { x, y } = placed(box, element.getBoundingClientRect(), { width: innerWidth, height: innerHeight });
    element.style.left = `${x}px`;
    element.style.top = `${y}px`;
  };
  const outside = (/** @type {Event} */ event) => {
    const path = event.composedPath();
    // A dialog that was opened from here lies over it and is no place "elsewhere".
    if (!path.includes(element) && !path.some((one) => one instanceof HTMLDialogElement)) dismissed();
  };
  place();
  addEventListener("resize", place);
  addEventListener("pointerdown", outside, true);

  return () => {
    removeEventListener("resize", place);
    removeEventListener("pointerdown", outside, true);
    element.remove();
    const back = anchor instanceof HTMLElement && anchor.isConnected ? anchor : before;
    if (back instanceof HTMLElement) back.focus({ preventScroll: true });
  };
}

/**
 * Where the popup's corner goes.
 *
 * @param {{ left: number, top: number, bottom: number }} anchor
 * @param {{ width: number, height: number }} size
 * @param {{ width: number, height: number }} room
 */
export function placed(anchor, size, room) {
  const below = anchor.bottom + EDGE / 2;
  const above = anchor.top - EDGE / 2 - size.height;
  const fitsBelow = below + size.height <= room.height - EDGE;
  const y = fitsBelow || above < EDGE ? below : above;
  return {
    x: Math.max(EDGE, Math.min(anchor.left, room.width - size.width - EDGE)),
    y: Math.max(EDGE, Math.min(y, room.height - size.height - EDGE)),
  };
}
