"""What everybody must be able to do with a page: read it, reach it, see all of it. Looked at in a browser."""

from __future__ import annotations

from typing import Any

# WCAG 2.2 AA, 1.4.3: 4.5 to 1, or 3 to 1 for large text; backgrounds are laid over each other as they are painted.
_CONTRAST = r"""() => {
  const parse = (text) => [...text.match(/[\d.]+/g).map(Number), 1].slice(0, 4);
  const channel = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const over = (top, low) => [0, 1, 2].map((i) => top[i] * top[3] + low[i] * (1 - top[3])).concat([1]);
  const behind = (element) => {
    const found = [];
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour[3] > 0) found.push(colour);
      if (colour[3] === 1) break;
    }
    return found.reverse().reduce((low, top) => over(top, low), [255, 255, 255, 1]);
  };
  const poor = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement, text = walk.currentNode.textContent.trim();
    if (!text || !element.getClientRects().length || element.closest(".unseen, .skip, script, style")) continue;
    const style = getComputedStyle(element), drawing = element.closest("svg");
    const low = behind(drawing || element), top = over(parse(drawing ? style.fill : style.color), low);
    const [a, b] = [light(top), light(low)].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (large ? 3 : 4.5)) poor.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""
_WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
_NAMELESS = """[...document.querySelectorAll(
    'button, a, summary, input:not([type=hidden]), table, progress, [role=img], [role=region]')]
  .filter((e) => !(e.textContent.trim() || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby')
    || e.labels?.length || e.caption)).map((e) => e.outerHTML.slice(0, 80))"""
_CUT_OFF = """[...document.querySelectorAll('*')].filter((e) => e.scrollWidth > e.clientWidth + 1
    && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX) && e.tabIndex < 0)
  .map((e) => e.outerHTML.slice(0, 80))"""


def faults(tab: Any) -> list[str]:
    """What is wrong with the page as it stands: poor contrast, wider than the window, no name, out of reach of keys."""
    wider = int(tab.evaluate(_WIDER))
    return [
        *(f"contrast: {text}" for text in tab.evaluate(_CONTRAST)),
        *([f"wider than the window by {wider} px"] if wider > 0 else []),
        *(f"no name: {text}" for text in tab.evaluate(_NAMELESS)),
        *(f"cannot be scrolled with the keyboard: {text}" for text in tab.evaluate(_CUT_OFF)),
    ]
