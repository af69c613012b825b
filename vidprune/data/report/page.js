"use strict";

// A click (or Enter, or Space) on a column's title sorts by it; again, the other way round. What is missing stays last.
for (const button of document.querySelectorAll("th > button")) {
  button.addEventListener("click", () => sortBy(button.parentElement));
}

function sortBy(header) {
  const body = header.closest("table").tBodies[0];
  const direction = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");

  const value = (row) => row.cells[header.cellIndex].dataset.value;
  const compare =
    header.dataset.kind === "number"
      ? (a, b) => Number(a) - Number(b)
      : (a, b) => a.localeCompare(b, "en", { numeric: true });
  const order = (a, b) => {
    const [left, right] = [value(a), value(b)];
    if (left === undefined || right === undefined) return (left === undefined) - (right === undefined);
    return direction * compare(left, right);
  };
  body.append(...[...body.rows].sort(order));
}
