// What htmx must not take from a reader when it refreshes a part of the page: focus, scroll, what was opened.
// Nothing is touched while nothing has changed; and a page that no longer hears from its process says so.
"use strict";

(() => {
  const last = new WeakMap();
  let kept = null;

  const note = (target) => ({
    focus: target.contains(document.activeElement) ? document.activeElement.id : "",
    open: [...target.querySelectorAll("details[id][open]")].map((one) => one.id),
    places: [...target.querySelectorAll(".scroll[id], .tall[id], .events[id]")].map((one) => [one.id, one.scrollLeft, one.scrollTop]),
  });

  const restore = ({ focus, open, places }) => {
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    for (const [id, left, top] of places) document.getElementById(id)?.scrollTo({ left, top, behavior: "instant" });
    if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
  };

  const stale = (yes) => {
    const banner = document.getElementById("stale");
    if (banner) banner.hidden = !yes;
  };

  document.addEventListener("htmx:before:swap", (event) => {
    const { target, text, response } = event.detail.ctx;
    const well = response.status === 200;
    stale(!well);
    if (!well || last.get(target) === text) {
      event.preventDefault();
      return;
    }
    last.set(target, text);
    kept = note(target);
  });
  document.addEventListener("htmx:after:swap", () => {
    if (kept) restore(kept);
    kept = null;
  });
  document.addEventListener("htmx:error", () => stale(true));
})();
