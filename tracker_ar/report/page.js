// Click a heading to sort the table by that column; click again to turn the order round.
for (const heading of document.querySelectorAll("th[data-sort]")) {
  heading.tabIndex = 0;
  heading.onkeydown = event => { if (event.key === "Enter") heading.onclick(); };
  heading.onclick = () => {
    const table = heading.closest("table"), body = table.tBodies[0];
    const column = heading.cellIndex, numbers = heading.dataset.sort === "number";
    const down = heading.ariaSort ? heading.ariaSort === "ascending" : numbers;
    for (const other of table.querySelectorAll("th[data-sort]")) other.ariaSort = null;
    heading.ariaSort = down ? "descending" : "ascending";
    const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const order = (a, b) => numbers ? a - b : a.localeCompare(b);
    const empty = value => value === "" ? 1 : 0; // gaps stay at the end
    const rows = [...body.rows].map(row => [key(row), row]);
    rows.sort(([a], [b]) => empty(a) - empty(b) || (down ? order(b, a) : order(a, b)));
    body.append(...rows.map(([, row]) => row));
  };
}
