// Sends each file to /predict, one after the other, and shows the answer. All text is set as text, never as HTML.
const files = document.getElementById("files");
const drop = document.getElementById("drop");
const status = document.getElementById("status");
const results = document.getElementById("results");
const template = document.getElementById("result");
const percent = (share) => `${(100 * share).toFixed(1)} %`;
let waiting = [];
let busy = false;

function show(answer) {
  const card = template.content.cloneNode(true).firstElementChild;
  const part = (name) => card.querySelector(`.${name}`);
  part("name").textContent = answer.name;
  if (answer.error) {
    card.classList.add("failed");
    part("decision").textContent = answer.error;
    results.prepend(card);
    return;
  }
  part("decision").textContent = answer.decision;
  part("why").textContent = answer.why;
  part("warnings").hidden = !answer.warnings.length;
  part("warnings").append(...answer.warnings.map((text) => {
    const line = document.createElement("li");
    line.textContent = text;
    return line;
  }));
  for (const stage of answer.stages) part("answers").append(tableOf(stage));
  part("film").hidden = false;
  part("grey").src = answer.image;
  part("grey").alt = `${answer.name}, in grey`;
  if (answer.heat) addHeat(card, answer);
  results.prepend(card);
}

function tableOf(stage) {
  const table = document.getElementById("answer").content.cloneNode(true).firstElementChild;
  table.querySelector("caption").textContent = stage.title;
  for (const [name, share] of stage.probabilities) {
    const row = table.querySelector("tbody").insertRow();
    row.className = stage.called.includes(name) ? "called" : "";
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = name;
    const bar = document.createElement("progress");
    bar.value = share;
    bar.setAttribute("aria-hidden", "true"); // the number beside it says the same
    row.append(head);
    row.insertCell().append(bar);
    row.cells[1].className = "bar";
    row.insertCell().textContent = percent(share);
    row.cells[2].className = "share";
  }
  return table;
}

function addHeat(card, answer) {
  const heat = card.querySelector(".heat");
  const blend = card.querySelector(".blend");
  const range = blend.querySelector("input");
  heat.src = answer.heat;
  heat.alt = `Grad-CAM: where the network finds what speaks for ${answer.heat_class}`;
  heat.hidden = blend.hidden = false;
  blend.querySelector(".of").textContent = `Grad-CAM of ${answer.heat_class}: strength of the overlay`;
  const set = () => { heat.style.opacity = range.value / 100; };
  range.addEventListener("input", set);
  set();
}

async function ask(file) {
  if (file.size > files.dataset.limit * 1e6) {
    return { name: file.name, error: `is larger than ${files.dataset.limit} MB` };
  }
  try {
    const reply = await fetch(`predict?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
    return await reply.json();
  } catch {
    return { name: file.name, error: "could not be sent. Is the program still running?" };
  }
}

async function work() {
  if (busy) return;
  busy = true;
  let done = 0;
  while (waiting.length) {
    const file = waiting.shift();
    status.textContent = `Looking at ${file.name}${waiting.length ? `, ${waiting.length} more to do` : ""} …`;
    show(await ask(file));
    done += 1;
  }
  status.textContent = `${done} ${done === 1 ? "file" : "files"} done.`;
  busy = false;
}

function take(list) {
  waiting.push(...list);
  work();
}

files.addEventListener("change", () => { take(files.files); files.value = ""; });
for (const kind of ["dragover", "dragenter"]) {
  document.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  take(event.dataTransfer.files);
});
