const data = JSON.parse(document.getElementById("data").textContent);
const players = startPlayers(data.players);
const main = players.main;

const frameHost = document.querySelector("[data-charts=main]");
if (frameHost && main) {
  const cuts = data.players.main.cuts.map((index) => [main.times[index], `a new scene starts at frame ${index}`]);
  const charts = drawCharts(frameHost, data.charts, { values: main.times, unit: " s", name: "time" }, { seek: (index) => main.seek(index), marks: cuts });
  main.listeners.push((index) => charts.forEach((chart) => chart.point(index)));
  main.show(main.index);
}

for (const run of data.trainings) {
  const root = document.getElementById(run.key);
  const samples = players[`${run.key}-samples`];
  let charts = [];
  const seek = (index) => {
    charts.forEach((chart) => chart.point(index));
    if (!samples) return;
    const distance = (step) => Math.abs(step - run.steps[index]);
    samples.seek(samples.steps.reduce((best, step, place) => (distance(step) < distance(samples.steps[best]) ? place : best), 0));
  };
  charts = drawCharts(root.querySelector(".charts"), run.charts, { values: run.steps, unit: "", name: "step" }, { seek, marks: run.marks });
  const smooth = root.querySelector(".smooth");
  const logarithmic = root.querySelector(".logarithmic");
  const update = () => charts.forEach((chart) => { chart.weight = Number(smooth.value); chart.logarithmic = logarithmic.checked; chart.draw(); });
  smooth.addEventListener("input", update);
  logarithmic.addEventListener("change", update);
  update();
}

for (const button of document.querySelectorAll("[data-seek]")) {
  button.addEventListener("click", () => {
    if (!main) return;
    main.seek(Number(button.dataset.seek));
    main.root.scrollIntoView({ behavior: "smooth" });
  });
}
