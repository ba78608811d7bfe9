"use strict";
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
for (const data of document.querySelectorAll(".data")) {
  const body = data.querySelector("tbody"), heads = [...data.querySelectorAll("th")];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending" ||
      (!head.hasAttribute("aria-sort") && head.classList.contains("n"));
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => {
      const cell = row.cells[column];
      return "v" in cell.dataset ? Number(cell.dataset.v) : cell.textContent;
    };
    const rows = [...body.rows].sort((a, b) => {
      const x = key(a), y = key(b);
      const order = typeof x === "number" && typeof y === "number" ? x - y
        : typeof x === "number" ? 1 : typeof y === "number" ? -1 : x.localeCompare(y, undefined, {numeric: true});
      return down ? -order : order;
    });
    body.append(...rows);
  }));
  const field = data.querySelector("input");
  if (field) {
    const count = data.querySelector(".count");
    const update = () => {
      const wanted = field.value.toLowerCase();
      let shown = 0;
      for (const row of body.rows) {
        row.hidden = !row.textContent.toLowerCase().includes(wanted);
        shown += !row.hidden;
      }
      count.textContent = shown + " of " + body.rows.length;
    };
    field.addEventListener("input", update);
    update();
  }
}
for (const pick of document.querySelectorAll(".pick")) {
  pick.addEventListener("click", event => {
    const button = event.target.closest("button");
    if (!button) return;
    for (const other of pick.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
    pick.nextElementSibling.dataset.show = button.value;
  });
}
