const words = document.getElementById("words");
if (words) {
  const boxes = [...document.querySelectorAll("#controls input[type=checkbox]")];
  const all = [...document.querySelectorAll("details.finding")].map(item => [item, item.textContent.toLowerCase()]);
  const update = () => {
    const wanted = words.value.toLowerCase(), on = new Set(boxes.filter(box => box.checked).map(box => box.value));
    let shown = 0;
    for (const [item, said] of all) {
      item.hidden = !on.has(item.dataset.severity) || !said.includes(wanted);
      shown += !item.hidden;
    }
    for (const file of document.querySelectorAll(".file, .group")) {
      file.hidden = !file.querySelector("details.finding:not([hidden])");
    }
    document.getElementById("shown").textContent = shown + " of " + all.length;
  };
  words.addEventListener("input", update);
  for (const box of boxes) box.addEventListener("change", update);
  document.getElementById("fold").addEventListener("click", () => {
    const open = all.some(([item]) => !item.hidden && !item.open);
    for (const [item] of all) if (!item.hidden) item.open = open;
  });
  update();
}
