// Asks the questions of a study in an order that follows from the study and the participant's name, and offers the answers as a file.
const FIXATION_MILLISECONDS = 500;
const FEEDBACK_MILLISECONDS = 160;

// Random numbers 0..1 that a text decides: its FNV-1a hash starts the generator mulberry32.
function randomFrom(text) {
  let state = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) state = Math.imul(state ^ byte, 0x01000193);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function shuffled(items, random) {
  const result = [...items];
  for (let last = result.length - 1; last > 0; last -= 1) {
    const other = Math.floor(random() * (last + 1));
    [result[last], result[other]] = [result[other], result[last]];
  }
  return result;
}

// Lists of stimuli from left to right, one for each trial: as many of each method, scenes repeated as late as possible, sides balanced.
function planTrials(study, participant) {
  const random = randomFrom(`${study.id}/${participant}`);
  const kindOf = (question) => question.map((index) => study.stimuli[index].method ?? "").join("\n");
  const decks = new Map();
  for (const question of shuffled(study.questions, random)) {
    if (!decks.has(kindOf(question))) decks.set(kindOf(question), []);
    decks.get(kindOf(question)).push(question);
  }
  const uses = new Map();
  const nameOf = (question) => study.stimuli[question[question.length - 1]].name;
  const deal = (chosen, wanted) => {
    const result = [];
    const order = shuffled(chosen, random);
    for (let turn = 0; result.length < wanted && order.some((deck) => deck.length); turn += 1) {
      const deck = order[turn % order.length];
      if (!deck.length) continue;
      const fewest = Math.min(...deck.map((question) => uses.get(nameOf(question)) ?? 0));
      const [question] = deck.splice(deck.findIndex((other) => (uses.get(nameOf(other)) ?? 0) === fewest), 1);
      uses.set(nameOf(question), fewest + 1);
      result.push(question);
    }
    return result;
  };
  let questions;
  if (study.kind === "unpaired") {
    const generated = deal([...decks].filter(([kind]) => kind !== "").map(([, deck]) => deck), Math.floor(study.num_trials / 2));
    questions = [...generated, ...deal([decks.get("")], study.num_trials - generated.length)];
  } else {
    questions = deal([...decks.values()], study.num_trials);
  }
  const onSides = (lists) => {
    const swaps = shuffled(lists.map((_, number) => number % 2 === 1), random);
    return lists.map((list, number) => (swaps[number] ? [...list].reverse() : [...list]));
  };
  const trials = onSides(shuffled(questions, random));
  const checks = onSides(shuffled(study.checks, random));
  const stretch = trials.length / Math.max(1, checks.length);
  const places = checks.map((_, number) => Math.floor((number + random()) * stretch) + 1);
  for (let number = checks.length - 1; number >= 0; number -= 1) trials.splice(Math.min(places[number], trials.length), 0, checks[number]);
  return trials;
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const nextFrame = () => new Promise((resolve) => requestAnimationFrame(resolve));

// A picture or a clip that is ready to be seen at once.
async function prepared({ uri, width, height }, isClip) {
  const box = document.createElement("div");
  box.className = "stimulus";
  box.style.setProperty("--width", width);
  box.style.setProperty("--height", height);
  const element = document.createElement(isClip ? "video" : "img");
  if (isClip) {
    Object.assign(element, { muted: true, loop: true, playsInline: true, preload: "auto" });
    const ready = new Promise((resolve, reject) => {
      element.addEventListener("canplaythrough", resolve, { once: true });
      element.addEventListener("error", () => reject(new Error("This browser cannot show the clips (H.264 in MP4).")), { once: true });
    });
    element.src = uri;
    await ready;
  } else {
    element.alt = "";
    element.draggable = false;
    element.src = uri;
    await element.decode();
  }
  box.append(element);
  return box;
}

function startStudy({ study, media, clips }) {
  const at = (id) => document.getElementById(id);
  const stage = at("stage");
  const buttons = [...document.querySelectorAll("[data-answer]")];
  const show = (id) => { for (const name of ["welcome", "trial", "end"]) at(name).hidden = name !== id; };
  let answered = null;
  let isUnsaved = false;

  const words = (text) => {
    const box = document.createElement("p");
    box.className = "words";
    box.textContent = text;
    return box;
  };
  const boxesOf = (shown) => Promise.all(shown.map((index) => prepared(media[index], clips)));

  const choose = (button) => {
    if (!answered || button.disabled) return;
    button.classList.add("chosen");
    answered(button.dataset.answer);
    answered = null;
  };
  buttons.forEach((button) => button.addEventListener("click", () => choose(button)));
  // A tap on one of two stimuli is as plain an answer as the button under it.
  stage.addEventListener("click", (event) => {
    const number = [...stage.children].indexOf(event.target.closest(".stimulus"));
    if (study.kind !== "unpaired" && number >= 0) choose(buttons[number]);
  });
  document.addEventListener("keydown", (event) => {
    const number = ["ArrowLeft", "ArrowRight"].indexOf(event.key);
    if (number < 0 || at("trial").hidden || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    choose(buttons[number]);
  });

  async function ask(shown, boxes) {
    const setEnabled = (enabled) => buttons.forEach((button) => { button.disabled = !enabled; });
    buttons.forEach((button) => button.classList.remove("chosen"));
    setEnabled(false);
    at("prompt").textContent = shown.length ? study.prompt : "Please read";
    stage.replaceChildren(...(shown.length ? boxes : [words("To show that you are paying attention, answer “Real”.")]));
    stage.classList.add("waiting", "fixation");
    await pause(FIXATION_MILLISECONDS);
    await Promise.all([...stage.querySelectorAll("video")].map((video) => video.play()));
    await nextFrame();
    stage.classList.remove("waiting", "fixation");
    const start = await nextFrame();
    setEnabled(true);
    const limit = shown.length ? study.exposure_milliseconds : null;
    let exposure = null;
    const watch = (now) => {
      if (exposure !== null) return;
      // Half a frame early is nearer than half a frame late.
      if (limit !== null && now - start >= limit - 8) {
        exposure = now - start;
        stage.classList.add("waiting");
      } else requestAnimationFrame(watch);
    };
    requestAnimationFrame(watch);
    const answer = await new Promise((resolve) => { answered = resolve; });
    const milliseconds = performance.now() - start;
    exposure ??= milliseconds;
    setEnabled(false);
    await pause(FEEDBACK_MILLISECONDS);
    return { shown, answer, milliseconds: Math.round(Math.max(0, milliseconds)), exposure: Math.round(Math.max(0, exposure)) };
  }

  async function run(participant) {
    const plan = planTrials(study, participant);
    const trials = [];
    isUnsaved = true;
    show("trial");
    let next = boxesOf(plan[0]);
    for (const [number, shown] of plan.entries()) {
      at("place").textContent = `${number + 1} of ${plan.length}`;
      document.querySelector("progress").value = number / plan.length;
      const boxes = await next;
      next = number + 1 < plan.length ? boxesOf(plan[number + 1]) : null;
      trials.push(await ask(shown, boxes));
    }
    finish({ schema_version: 1, study, participant, finished: new Date().toISOString(), trials });
  }

  function finish(answers) {
    const text = JSON.stringify(answers, null, 1);
    const name = `answers-${study.id}-${answers.participant.replace(/[^\p{L}\p{N}_-]+/gu, "_")}.json`;
    const link = at("save");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = name;
    link.addEventListener("click", () => {
      isUnsaved = false;
      at("file").textContent = `Saved as ${name}. You can close this page.`;
    });
    at("file").textContent = name;
    at("text").value = text;
    show("end");
    link.focus();
  }

  const given = new URLSearchParams(location.hash.slice(1)).get("participant");
  const field = at("participant");
  field.value = given ?? String(crypto.getRandomValues(new Uint32Array(1))[0] % 1e8).padStart(8, "0");
  field.readOnly = given !== null;
  at("begin").addEventListener("submit", (event) => {
    event.preventDefault();
    const participant = field.value.trim();
    if (participant) run(participant).catch((error) => { stage.replaceChildren(words(error.message)); });
  });
  addEventListener("beforeunload", (event) => { if (isUnsaved) event.preventDefault(); });
  document.querySelector("#begin button").focus();
}
