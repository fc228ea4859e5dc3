// Videos that show the same frame, whoever moves: the slider, the buttons, the keys, or a curve.
class Player {
  constructor(root, { times, steps = null }) {
    this.root = root;
    this.times = times;
    this.steps = steps;
    this.index = 0;
    this.playing = false;
    this.listeners = [];
    this.videos = [...root.querySelectorAll("video")];
    this.stage = root.querySelector(".stage");
    this.slider = root.querySelector(".timeline");
    this.output = root.querySelector("output");
    this.button = root.querySelector('[data-do="play"]');
    this.slider.max = Math.max(0, times.length - 1);
    this.slider.addEventListener("input", () => this.seek(Number(this.slider.value)));
    this.button.addEventListener("click", () => this.toggle());
    root.querySelector('[data-do="back"]').addEventListener("click", () => this.seek(this.index - 1));
    root.querySelector('[data-do="forward"]').addEventListener("click", () => this.seek(this.index + 1));
    this.speed = root.querySelector(".speed");
    this.speed.addEventListener("change", () => this.videos.forEach((video) => { video.playbackRate = Number(this.speed.value); }));
    for (const video of this.videos) {
      video.addEventListener("loadedmetadata", () => { video.currentTime = this.middle(this.index); });
      video.addEventListener("error", () => this.drop(video));
    }
    if (this.videos.length > 1) this.prepareViews();
    this.seek(0);
  }

  // Halfway through a frame, so that no rounding shows its neighbor.
  middle(index) {
    const times = this.times;
    const length = index + 1 < times.length ? times[index + 1] - times[index] : index > 0 ? times[index] - times[index - 1] : 0;
    return times.length ? times[index] + length / 2 : 0;
  }

  indexAt(time) {
    let low = 0;
    let high = this.times.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.times[middle] <= time + 1e-6) low = middle; else high = middle - 1;
    }
    return low;
  }

  seek(index) {
    this.pause();
    this.show(Math.min(Math.max(index, 0), Math.max(0, this.times.length - 1)));
    for (const video of this.videos) video.currentTime = this.middle(this.index);
  }

  show(index) {
    this.index = index;
    this.slider.value = index;
    const text = this.steps ? `step ${this.steps[index]}` : `frame ${index} of 0–${this.times.length - 1}, ${(this.times[index] ?? 0).toFixed(2)} s`;
    this.output.textContent = text;
    this.slider.setAttribute("aria-valuetext", text);
    this.listeners.forEach((listener) => listener(index));
  }

  toggle() { if (this.playing) this.seek(this.index); else this.play(); }

  play() {
    if (!this.videos.length) return;
    if (this.index >= this.times.length - 1) this.seek(0);
    this.playing = true;
    this.button.textContent = "Pause";
    for (const video of this.videos) {
      video.playbackRate = Number(this.speed.value);
      video.play().catch(() => {});
    }
    requestAnimationFrame(() => this.follow());
  }

  pause() {
    this.playing = false;
    this.button.textContent = "Play";
    for (const video of this.videos) video.pause();
  }

  follow() {
    if (!this.playing) return;
    const [lead, ...others] = this.videos;
    if (lead.ended || this.videos.some((video) => video.ended)) {
      this.seek(0);
      this.play();
      return;
    }
    const frame = this.times.length > 1 ? this.times[this.times.length - 1] / (this.times.length - 1) : 0.04;
    for (const video of others) {
      if (Math.abs(video.currentTime - lead.currentTime) > Math.max(0.02, frame / 2)) video.currentTime = lead.currentTime;
    }
    const index = this.indexAt(lead.currentTime);
    if (index !== this.index) this.show(index);
    requestAnimationFrame(() => this.follow());
  }

  drop(video) {
    this.videos = this.videos.filter((other) => other !== video);
    const note = document.createElement("p");
    note.textContent = "This browser cannot show this video (H.264 in MP4).";
    video.replaceWith(note);
  }

  prepareViews() {
    const select = (side) => this.root.querySelector(`[data-side="${side}"]`);
    const figures = [...this.stage.querySelectorAll("figure")];
    const wipe = this.root.querySelector(".wipe");
    const gain = this.root.querySelector(".gain");
    const update = () => {
      const view = this.root.querySelector(".views [type=radio]:checked").value;
      this.stage.dataset.view = view;
      figures.forEach((figure, index) => {
        figure.classList.toggle("a", index === Number(select("a").value));
        figure.classList.toggle("b", index === Number(select("b").value));
      });
      for (const [name, wanted] of [["pair", view !== "side"], ["wipe", view === "wipe"], ["difference", view === "difference"]]) {
        this.root.querySelectorAll(`.only-${name}`).forEach((item) => { item.hidden = !wanted; item.style.display = wanted ? "" : "none"; });
      }
      this.stage.style.setProperty("--wipe", `${wipe.value}%`);
      this.stage.style.setProperty("--gain", gain.value);
    };
    this.root.querySelector(".views").addEventListener("input", update);
    const drag = (event) => {
      if (this.stage.dataset.view !== "wipe" || !(event.buttons & 1)) return;
      const box = this.stage.getBoundingClientRect();
      wipe.value = Math.min(100, Math.max(0, 100 * (event.clientX - box.left) / box.width));
      update();
    };
    this.stage.addEventListener("pointerdown", drag);
    this.stage.addEventListener("pointermove", drag);
    update();
  }
}

function startPlayers(specs) {
  const players = {};
  for (const root of document.querySelectorAll("[data-player]")) {
    if (specs[root.dataset.player]) players[root.dataset.player] = new Player(root, specs[root.dataset.player]);
  }
  const main = Object.values(players)[0];
  document.addEventListener("keydown", (event) => {
    if (!main || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, button, summary, a, .chart")) return;
    const action = { " ": () => main.toggle(), ArrowLeft: () => main.seek(main.index - 1), ArrowRight: () => main.seek(main.index + 1) }[event.key];
    if (action) { event.preventDefault(); action(); }
  });
  return players;
}
