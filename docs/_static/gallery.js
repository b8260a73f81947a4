// The gallery's index: rows are narrowed down by words, family, room and verdict; the address keeps what was asked, so it can be sent.
(() => {
  const form = document.querySelector("form.gallery-filter");
  if (!form) return;
  const plain = (text) => text.toLowerCase().normalize("NFD").replace(/\p{M}/gu, "");
  const rows = [...document.querySelectorAll("ul.gallery-rows > li")].map((item) => ({ item, text: plain(item.textContent) }));
  const sections = [...new Set(rows.map((row) => row.item.closest("section")))];
  const fields = [...form.elements].filter((field) => field.name);
  const count = form.querySelector("output");

  const fill = () => {
    const asked = new URLSearchParams(location.hash.slice(1));
    for (const field of fields) {
      field.value = asked.get(field.name) ?? "";
      if (field.selectedIndex === -1) field.value = "";
    }
  };
  const show = () => {
    const words = plain(form.elements.q.value).split(/\s+/).filter(Boolean);
    const chosen = fields.filter((field) => field.name !== "q" && field.value);
    let left = 0;
    for (const { item, text } of rows) {
      const kept = words.every((word) => text.includes(word))
        && chosen.every((field) => item.dataset[field.name].split(" ").includes(field.value));
      item.hidden = !kept;
      left += kept;
    }
    for (const section of sections) section.hidden = !section.querySelector("ul.gallery-rows > li:not([hidden])");
    count.textContent = left === rows.length ? `${left} rows` : `${left} of ${rows.length} rows`;
  };
  const remember = () => {
    const asked = new URLSearchParams(fields.filter((field) => field.value).map((field) => [field.name, field.value])).toString();
    history.replaceState(null, "", asked ? `#${asked}` : location.pathname + location.search);
  };

  form.addEventListener("input", () => { show(); remember(); });
  form.addEventListener("reset", () => setTimeout(() => { show(); remember(); }));
  form.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("hashchange", () => { fill(); show(); });
  form.hidden = false;
  fill();
  show();
})();
