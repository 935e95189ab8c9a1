// Lists what is wrong with a page as it stands.
(() => {
  const faults = [];
  const seen = (it) => it.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const say = (it, what) => faults.push(what + ": " + it.outerHTML.slice(0, 160));
  const scope = document.querySelector("dialog[open]") || document.body;
  const all = [...scope.querySelectorAll("*")].filter(seen);
  // Contrast, as WCAG 2.2 computes it (1.4.3).
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const ratio = (a, b) => (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  const behind = (it) => {
    for (let at = it; at; at = at.parentElement) {
      const found = rgba(getComputedStyle(at).backgroundColor);
      if (found[3] === 255) return found;
    }
    return [255, 255, 255, 255];
  };
  const legible = (it, style) => {
    const size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
    const least = size >= 24 || (bold && size >= 18.66) ? 3 : 4.5;
    const got = ratio(light(rgba(style.color)), light(behind(it)));
    if (got < least) say(it, "contrast " + got.toFixed(2));
  };
  for (const it of all) {
    const own = [...it.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (own && !it.disabled && !it.closest("svg")) legible(it, getComputedStyle(it));
    if (it.placeholder) legible(it, getComputedStyle(it, "::placeholder"));
  }
  // Names, roles and structure.
  const named = (it) => it.getAttribute("aria-label") || it.labels?.[0]?.textContent.trim()
    || it.getAttribute("aria-labelledby") || it.textContent.trim();
  for (const it of all) {
    if (it.matches("input, select, textarea") && !it.labels?.length && !it.ariaLabel) say(it, "no label");
    if (it.matches("button, a, svg[role=img], table, nav, section, dialog") && !named(it)) say(it, "no name");
    if (it.tabIndex > 0) say(it, "an order of its own");
    if (it.matches("button, input, select") && it.getBoundingClientRect().height < 24) say(it, "too small");
  }
  const ids = [...document.querySelectorAll("[id]")].map((it) => it.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push("twice: " + id);
  const headings = [...document.querySelectorAll("main h2, main h3, main h4")].filter(seen);
  let level = 1;
  for (const it of headings) {
    const next = Number(it.tagName[1]);
    if (next > level + 1) say(it, "skips a level");
    level = next;
  }
  for (const landmark of ["h1", "header", "main"]) {
    if (document.querySelectorAll("body " + landmark).length !== 1) faults.push("not one " + landmark);
  }
  if (document.documentElement.lang !== "en" || !document.title) faults.push("no language or title");
  // Nothing beyond the edge, and no word over another.
  if (document.documentElement.scrollWidth > innerWidth) faults.push("wider than the window");
  for (const it of all) {
    const { right, width } = it.getBoundingClientRect();
    if (width > 1 && right > innerWidth + 1) say(it, "beyond the edge");
    if (it.matches("button, .pill, h2:not(.hide), h3, td") && it.scrollWidth > it.clientWidth + 1
      && getComputedStyle(it).display !== "inline") say(it, "too long for its place");
  }
  return faults;
})()
