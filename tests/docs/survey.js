// What is wrong with the page as it is shown now: a list of sentences.
(() => {
  const found = [];
  const name = (e) => e.tagName.toLowerCase() + (e.id ? '#' + e.id : '') + (e.className && e.className.baseVal === undefined ? '.' + String(e.className).split(' ').join('.') : '');
  const scrolls = (e) => { for (; e && e !== document.body; e = e.parentElement) if (/auto|scroll|hidden/.test(getComputedStyle(e).overflowX)) return true; return false; };
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 0) {
    const out = [...document.body.querySelectorAll('*')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !scrolls(e.parentElement));
    found.push(`overflows by ${wide} px: ${out.slice(-3).map(name).join(' ')}`);
  }
  for (const math of document.querySelectorAll('math')) {
    const box = math.getBoundingClientRect();
    if (!(box.width > 0 && box.height > 0)) found.push(`empty formula: ${math.textContent}`);
  }
  const visible = (e) => e.closest('pre, code, script, style, textarea, .sig') === null && e.checkVisibility();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.data;
    if (/\$[^$\n]+\$|\$\$|\\[a-zA-Z]+/.test(text) && visible(walk.currentNode.parentElement)) found.push(`raw LaTeX: ${text.trim().slice(0, 60)}`);
  }
  for (const image of document.images) if (image.complete && !image.naturalWidth) found.push(`picture not shown: ${image.src}`);
  const rgb = (text) => (text.match(/[\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)).reduce((s, c, i) => s + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; };
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  const ground = light(behind(document.querySelector('article, main') || document.body));
  if (dark ? ground > 0.2 : ground < 0.8) found.push(`background does not follow the ${dark ? 'dark' : 'light'} scheme`);
  const faint = new Set(), known = new Set();
  for (const e of (document.querySelector('article') || document.body).querySelectorAll('h1, h2, h3, p, li, dt, td, th, code, pre span, a, math')) {
    // what looks alike is measured once
    const kind = [e, e.parentElement, e.parentElement.parentElement].map((x) => x.tagName + x.className + x.getAttribute('style')).join(' ');
    if (known.has(kind) || (e.tagName !== 'math' && ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) || !e.checkVisibility()) continue;
    known.add(kind);
    const style = getComputedStyle(e), [a, b] = [light(rgb(style.color)), light(behind(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 3) faint.add(`${name(e)} ${style.color} on ${behind(e)}`);
  }
  for (const one of faint) found.push(`faint text: ${one}`);
  return found;
})()
