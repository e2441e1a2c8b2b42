for (const table of document.querySelectorAll("table.sort")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((th, i) => {
    const button = document.createElement("button");
    button.append(...th.childNodes);
    th.append(button);
    button.addEventListener("click", () => {
      const down = th.getAttribute("aria-sort") ? th.getAttribute("aria-sort") === "ascending" : th.dataset.first === "down";
      heads.forEach((h) => h.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (tr) => { const c = tr.cells[i], v = c.dataset.v; return v === undefined ? c.textContent : v === "" ? -Infinity : v === "+Inf" ? Infinity : Number(v); };
      const sign = down ? -1 : 1;
      const rows = [...body.rows].map((tr) => [value(tr), tr]);
      rows.sort(([a], [b]) => sign * (typeof a === "number" ? (a > b) - (a < b) : a.localeCompare(b, "en", { numeric: true })));
      body.append(...rows.map((r) => r[1]));
    });
  });
}
for (const input of document.querySelectorAll("input.filter")) {
  input.parentElement.hidden = false;
  const rows = document.getElementById(input.dataset.table).tBodies[0].rows;
  input.addEventListener("input", () => {
    for (const tr of rows) tr.hidden = !tr.textContent.toLowerCase().includes(input.value.toLowerCase());
  });
}
