// The page can be read without this script. It opens details of runs, sorts tables, filters runs, and plays the masks.

// The details of a run are drawn when its line is first opened. Runs refer to entries of one pool by number.
const { results, pool, runs } = JSON.parse(document.getElementById("details").textContent);
const children = {};
for (const [id, run] of Object.entries(runs)) for (const parent of run.parents) (children[parent] ??= []).push(id);
const make = (tag, content, attributes = {}) => {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...content);
  return made;
};
const list = (links, between) => links.flatMap((link, position) => (position ? [between, link] : [link]));
const toRuns = (ids = []) => list(ids.map((id) => make("a", [make("code", [id])], { href: `#${id}` })), " ");
const draw = (line) => {
  const run = runs[line.id], body = line.querySelector(".body");
  if (!run || body.querySelector("dl")) return;
  const files = pool[run.files].map((name) => make("a", [name], { href: `${results}/${encodeURIComponent(line.id)}/${name}` }));
  const cells = run.cells.map((at) => make("a", [pool[at][1]], { href: `#cell-${pool[at][0]}` }));
  const fields = [
    ...run.fields.map((at) => [pool[at][0], [pool[at][1]]]),
    ["files", list(files, ", ")], ["starts from", toRuns(run.parents)], ["continued by", toRuns(children[line.id])], ["used in", list(cells, "; ")],
  ].filter(([, content]) => content.length);
  const spec = JSON.stringify(Object.fromEntries(run.spec.map((at) => pool[at])), null, 1);
  body.replaceChildren(
    make("dl", fields.flatMap(([name, content]) => [make("dt", [name]), make("dd", content)])),
    make("details", [make("summary", ["Spec"]), make("pre", [spec])]),
  );
};
addEventListener("toggle", ({ target }) => target.matches?.(".run[open]") && draw(target), true);

const open = () => {
  const run = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (run?.matches(".run")) (draw(run), (run.open = true));
};
addEventListener("hashchange", open);
open();

// The keyboard can reach a box that scrolls.
const reach = () => document.querySelectorAll(".wide").forEach((box) => {
  if (box.scrollWidth > box.clientWidth) Object.assign(box, { tabIndex: 0, role: "region", ariaLabel: box.querySelector("caption").textContent });
  else box.removeAttribute("tabindex");
});
addEventListener("resize", reach);
reach();

// A click on a heading sorts its column: ascending, descending, then the original order. Groups stay together, and cells without a number last.
const key = (row, column) => {
  const cell = row.cells[column], text = cell.dataset.sort ?? cell.textContent.trim().replace("−", "-").replaceAll(",", "");
  const number = parseFloat(text);
  return cell.scope === "row" || (Number.isNaN(number) && text !== "–") ? text : number;
};
const compare = (a, b, up) => {
  const [text, other] = [typeof a === "string", typeof b === "string"];
  if (text && other) return up * a.localeCompare(b, "en", { numeric: true });
  if (text || other) return text - other;
  return Number.isNaN(a) - Number.isNaN(b) || up * (a - b) || 0;
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...table.tBodies].map((body) => [body, [...body.rows].filter((row) => !row.matches(".group, .total"))]);
  heads.forEach((head, column) => {
    if (head.tagName !== "TH") return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const order = { undefined: "ascending", ascending: "descending" }[head.getAttribute("aria-sort") ?? undefined];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (order) head.setAttribute("aria-sort", order);
      for (const [body, original] of rows) {
        const up = order === "descending" ? -1 : 1;
        const sorted = order ? original.toSorted((a, b) => compare(key(a, column), key(b, column), up)) : original;
        const last = body.querySelector(".total");
        sorted.forEach((row) => body.insertBefore(row, last));
      }
    };
  });
}

// Filters hide lines of the list of runs. A checkbox hides a column.
const filters = document.querySelector(".filters");
if (filters) {
  const lines = [...document.querySelectorAll(".run")], output = filters.querySelector("output");
  const choices = [...filters.querySelectorAll("select")];
  for (const choice of choices) {
    const values = [...new Set(lines.map((line) => line.dataset[choice.name]))].filter(Boolean);
    choice.append(...values.map((value) => make("option", [value])));
    choice.parentElement.hidden = values.length < 2;
  }
  const filter = () => {
    const wanted = choices.map(({ name, value }) => [name, value]).filter(([, value]) => value);
    const text = filters.elements.text.value.trim().toLowerCase();
    for (const line of lines)
      line.hidden = wanted.some(([name, value]) => line.dataset[name] !== value) || (text && !line.querySelector("summary").textContent.toLowerCase().includes(text));
    document.querySelectorAll(".stage").forEach((stage) => (stage.hidden = !stage.querySelector(".run:not([hidden])")));
    output.value = `${lines.filter((line) => !line.hidden).length} of ${lines.length} runs`;
  };
  const style = document.head.appendChild(document.createElement("style"));
  filters.oninput = () => {
    const hidden = [...filters.querySelectorAll("input[type=checkbox]:not(:checked)")].map((box) => `.c-${box.value}`);
    style.textContent = hidden.length ? `${hidden.join(",")} { display: none; }` : "";
    filter();
  };
  filters.onsubmit = (event) => event.preventDefault();
  filters.hidden = false;
  filter();
  // A link to a hidden run resets the filters.
  addEventListener("hashchange", () => {
    const line = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (line?.matches(".run[hidden]")) (filters.reset(), filter(), line.scrollIntoView());
  });
}

// The mask player shows one time slot of every strip. It starts by itself unless the reader prefers reduced motion.
const player = document.getElementById("gallery");
if (player) {
  const [button, slider, output] = ["button", "input", "output"].map((name) => player.querySelector(name));
  let timer = 0;
  const show = (slot) => {
    slider.value = slot;
    output.value = `${slot} of ${slider.max}`;
    player.style.setProperty("--slot", slot - 1);
  };
  const play = (on) => {
    clearInterval(timer);
    timer = on && setInterval(() => show((slider.value % slider.max) + 1), 300);
    button.textContent = on ? "Pause" : "Play";
  };
  button.onclick = () => play(!timer);
  slider.oninput = () => (play(false), show(slider.value));
  player.querySelector(".controls").hidden = false;
  play(!matchMedia("(prefers-reduced-motion: reduce)").matches);
}
