// The page: what is chosen, sent, shown. player.js plays.
import { $, api, clock } from "./common.js";
import { Player } from "./player.js";

const KARAOKE_DB = -12;
const SILENT_DB = -40; // the lowest place of a slider means none at all
const BUSY_MS = 500;
const IDLE_MS = 20000;

const all = new Set(); // the cards
const cards = new Map(); // those of songs that the server has, by id
let offered, timer, playing, lost;

const title = (name) => name[0].toUpperCase() + name.slice(1);
const factor = (db) => (db <= SILENT_DB ? 0 : 10 ** (db / 20));
const decibels = (db) => (db <= SILENT_DB ? "off" : `${db > 0 ? "+" : db < 0 ? "−" : ""}${Math.abs(db)} dB`);

function complain(error) {
  $("#message").textContent = error?.message ?? "";
  $("#message").hidden = !error;
}
const trying = (work) => async (...values) => {
  complain(null);
  try {
    await work(...values);
  } catch (error) {
    complain(error);
  }
};

// --- settings ---

const keep = (key, value) => sessionStorage.setItem(key, JSON.stringify(value)); // over a reload
const kept = (key, otherwise) => JSON.parse(sessionStorage.getItem(key)) ?? otherwise;

function keepChoice(select, otherwise) {
  select.value = kept(select.id, otherwise);
  if (select.selectedIndex < 0) select.value = otherwise; // another server, another list
  select.addEventListener("change", () => keep(select.id, select.value));
}

function showModel() {
  const model = offered.models.find((one) => one.name === $("#model").value);
  $("#about").textContent = model.about;
  const boxes = model.stems.map((name) => {
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", value: name });
    box.checked = !kept("left out", []).includes(name);
    box.addEventListener("change", () => {
      keep("left out", stemBoxes(":not(:checked)"));
      all.forEach((card) => card.showChosen());
    });
    label.append(box, ` ${title(name)}`);
    return label;
  });
  $("#stems").replaceChildren(...boxes);
}
const stemBoxes = (state) => [...document.querySelectorAll(`#stems input${state}`)].map((box) => box.value);
const chosenStems = () => stemBoxes(":checked");

async function download(wanted, status) {
  status.textContent = "Preparing the file …";
  try {
    const asked = { format: $("#format").value, ...wanted };
    let made = {};
    while (!made.url) {
      made = await api("POST", "downloads", asked);
      if (!made.url) status.textContent = `Preparing the file, ${Math.floor(100 * made.progress)} %`;
    }
    Object.assign(document.createElement("a"), { href: made.url, download: made.name }).click();
    status.textContent = `${made.name} goes to your downloads.`;
  } catch (error) {
    status.textContent = "";
    throw error;
  }
}

// --- one song ---

class Card {
  constructor(name) {
    this.node = $("#song").content.cloneNode(true).firstElementChild;
    this.part = (selector) => $(selector, this.node);
    this.part(".name").textContent = name;
    this.name = name;
    this.node.setAttribute("aria-label", name);
    this.part("progress").setAttribute("aria-label", `Progress of ${name}`);
    this.part(".remove").addEventListener("click", trying(() => this.remove()));
    $("#songs").append(this.node);
    all.add(this);
    showList();
  }

  async remove() {
    const known = cards.get(this.id) === this;
    this.discard();
    if (known) await api("DELETE", `songs/${this.id}`);
    schedule(0);
  }

  discard() {
    this.gone = true;
    this.request?.abort();
    this.player?.release();
    if (cards.get(this.id) === this) cards.delete(this.id);
    all.delete(this);
    this.node.remove();
    showList();
  }

  fail(text) {
    this.say(text.replace(`${this.name}: `, ""), true); // the name stands above
    this.part("progress").hidden = true;
    this.part(".remove").textContent = "Dismiss";
  }

  say(text, error = false) {
    const line = this.part(".state");
    line.classList.toggle("error", error);
    if (error && line.textContent !== text) line.setAttribute("role", "alert");
    line.textContent = text;
  }

  send(file) { // resolves when the song is in the queue, was refused or cancelled
    const request = (this.request = new XMLHttpRequest());
    const query = new URLSearchParams({ name: file.name, model: $("#model").value });
    request.open("PUT", `api/songs?${query}`);
    request.upload.onprogress = ({ loaded, total }) => {
      this.part("progress").value = loaded / total;
      this.say(`Sending, ${Math.round((100 * loaded) / total)} %`);
    };
    return new Promise((resolve) => {
      request.onloadend = () => {
        this.request = null;
        let value = {};
        try {
          value = JSON.parse(request.responseText);
        } catch { /* not an answer of ours */ }
        if (this.gone) {
          if (value.id) api("DELETE", `songs/${value.id}`).catch(() => {});
        } else if (request.status === 201) {
          this.id = value.id;
          cards.get(value.id)?.discard(); // the list was faster
          cards.set(value.id, this);
        } else {
          this.fail(value.error ?? `${file.name}: was not sent; is \`separator serve\` still running?`);
        }
        resolve();
      };
      request.send(file);
    });
  }

  show(song) {
    const before = this.song?.state;
    this.song = song;
    const left = song.left === null ? "" : `, about ${clock(song.left)} left`;
    if (song.notices.length) {
      this.part(".notices").hidden = false;
      this.part(".notices").replaceChildren(...song.notices.map((text) => {
        return Object.assign(document.createElement("li"), { textContent: text });
      }));
    }
    if (song.state === "failed") {
      if (before !== "failed") this.fail(song.error);
    } else if (song.state === "ready") {
      if (before !== "ready") trying(() => this.ready())();
    } else {
      const percent = Math.floor(100 * song.progress);
      const place = song.ahead === 1 ? "1 song" : `${song.ahead} songs`;
      this.say(song.state === "waiting" ? `Waiting for ${place}${left}` : `Separating, ${percent} %${left}`);
      this.part("progress").value = song.progress;
    }
  }

  async ready() {
    const { song } = this;
    this.waves = await api("GET", `songs/${song.id}/waveform`);
    if (this.gone) return;
    this.say(`Ready, ${clock(song.seconds)}`);
    if (document.body.dataset.started) $("#said").textContent = `${song.name} is ready`;
    this.part("progress").hidden = true;
    this.part(".remove").textContent = "Remove";
    this.part(".player").hidden = false;
    this.player = new Player(song, () => this.tick(), complain);
    this.balance = kept(song.id, Object.fromEntries(song.stems.map((name) => [name, { db: 0, muted: false }])));
    this.rows = Object.fromEntries(song.stems.map((name) => [name, this.stem(name)]));
    const position = this.part(".position");
    position.max = song.samples / song.rate;
    position.setAttribute("aria-label", `Position in ${song.name}`);
    position.addEventListener("input", trying(() => this.player.seek(Number(position.value))));
    this.part(".mixture").addEventListener("click", trying((event) => {
      const box = event.currentTarget.getBoundingClientRect();
      return this.player.seek(((event.clientX - box.left) / box.width) * position.max);
    }));
    this.part(".play").addEventListener("click", trying(() => this.toggle()));
    this.part(".karaoke").hidden = !song.stems.includes(offered.voice);
    this.part(".karaoke").addEventListener("click", () => this.set({ [offered.voice]: KARAOKE_DB }));
    this.part(".reset").addEventListener("click", () => this.set({}));
    const making = this.part(".making");
    this.part(".all").addEventListener("click", trying(() => {
      return download({ songs: [song.id], stems: chosenStems() }, making);
    }));
    this.part(".mix").addEventListener("click", trying(() => {
      return download({ songs: [song.id], gains: this.gains() }, making);
    }));
    new ResizeObserver(() => this.draw()).observe(this.node);
    this.showChosen();
    this.apply();
    this.tick();
  }

  stem(name) {
    const row = $("#stem").content.cloneNode(true).firstElementChild;
    row.setAttribute("aria-label", title(name));
    row.dataset.stem = name;
    const [mute, slider, save] = [".mute", "input", ".save"].map((selector) => $(selector, row));
    $(".stem-name", row).textContent = title(name);
    mute.setAttribute("aria-label", `Mute ${name}`);
    slider.setAttribute("aria-label", `Level of ${name} in decibels`);
    save.setAttribute("aria-label", `Download ${name}`);
    mute.addEventListener("click", () => {
      this.balance[name].muted = !this.balance[name].muted;
      this.apply();
    });
    slider.addEventListener("input", () => {
      this.balance[name].db = Number(slider.value);
      this.apply();
    });
    save.addEventListener("click", trying(() => {
      return download({ songs: [this.song.id], stems: [name] }, this.part(".making"));
    }));
    this.part(".stems").append(row);
    return row;
  }

  set(levels) {
    for (const name of this.song.stems) this.balance[name] = { db: levels[name] ?? 0, muted: false };
    this.apply();
  }

  gains() {
    const gain = ({ db, muted }) => (muted ? 0 : factor(db));
    return Object.fromEntries(this.song.stems.map((name) => [name, gain(this.balance[name])]));
  }

  apply() { // what is chosen, to the controls and the sound
    for (const [name, { db, muted }] of Object.entries(this.balance)) {
      const row = this.rows[name];
      $(".mute", row).setAttribute("aria-pressed", muted);
      $("input", row).value = db;
      $("input", row).setAttribute("aria-valuetext", decibels(db));
      $("output", row).textContent = decibels(db);
    }
    keep(this.song.id, this.balance);
    this.player.setGains(this.gains());
    this.draw();
  }

  showChosen() {
    if (!this.rows) return;
    const chosen = chosenStems().filter((name) => this.song.stems.includes(name));
    this.part(".all").disabled = !chosen.length;
    this.part(".all").textContent = chosen.length === 1 ? `Download ${chosen[0]}` : "Download stems (zip)";
  }

  async toggle() {
    if (this.player.playing) return this.player.pause();
    if (playing !== this.player) playing?.release();
    playing = this.player;
    await this.player.play();
  }

  tick() { // the player moved
    const { position, playing: on } = this.player;
    const slider = this.part(".position");
    const text = `${clock(position)} of ${clock(slider.max)}`;
    slider.value = position;
    slider.setAttribute("aria-valuetext", text);
    this.part(".time").textContent = text;
    this.part(".play").textContent = on ? "Pause" : "Play";
    this.draw();
  }

  draw() {
    if (!this.rows || this.gone) return;
    const played = this.player.position / this.part(".position").max;
    const gains = this.gains();
    drawWave(this.part(".mixture"), this.waves.mixture, played, 1);
    for (const name of this.song.stems) drawWave($("canvas", this.rows[name]), this.waves[name], played, gains[name]);
  }
}

function drawWave(canvas, bars, played, gain) {
  const scale = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * scale);
  const height = Math.round(canvas.clientHeight * scale);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const style = getComputedStyle(canvas);
  const [quiet, loud] = ["--wave", "--played"].map((name) => style.getPropertyValue(name));
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, width, height);
  for (let x = 0; x < width; x++) { // the loudest of the bars below a pixel
    const from = Math.floor((x * bars.length) / width);
    const to = Math.max(from + 1, Math.floor(((x + 1) * bars.length) / width));
    let peak = 0;
    for (let bar = from; bar < to; bar++) peak = Math.max(peak, bars[bar]);
    const tall = Math.max(scale, Math.min(1, (peak / 255) * gain) * height);
    pen.fillStyle = x / width < played ? loud : quiet;
    pen.fillRect(x, (height - tall) / 2, 1, tall);
  }
}

// --- the list ---

function showList() {
  const songs = [...cards.values()].filter((card) => card.song?.state === "ready");
  $("#none").hidden = all.size > 0;
  $("#clear").hidden = !all.size;
  $("#everything").hidden = songs.length < 2;
}

function schedule(after) {
  clearTimeout(timer);
  timer = setTimeout(poll, after);
}

async function poll() {
  let wait = IDLE_MS;
  try {
    const songs = await api("GET", "songs");
    for (const song of songs) {
      if (!cards.has(song.id)) {
        if (sending) continue; // it may be the one whose upload ends in this moment
        const card = new Card(song.name);
        card.id = song.id;
        cards.set(song.id, card);
      }
      cards.get(song.id).show(song);
      if (song.state === "waiting" || song.state === "separating") wait = BUSY_MS;
    }
    const there = new Set(songs.map((song) => song.id));
    for (const [id, card] of cards) if (!there.has(id)) card.discard();
    showList();
    if (lost) complain((lost = null));
  } catch (error) {
    complain((lost = error));
    wait = 5000;
  }
  schedule(wait);
}

const line = []; // cards and files that wait to be sent
let sending = false;

async function add(files) {
  complain(null);
  document.body.dataset.started = "yes";
  for (const file of files) {
    const card = new Card(file.name);
    const { megabytes } = offered.limits;
    if (file.size > megabytes * 1e6) card.fail(`${file.name}: larger than ${megabytes} MB (separator serve --max-megabytes)`);
    else {
      card.say("Waiting to be sent");
      line.push([card, file]);
    }
  }
  if (sending) return;
  sending = true;
  while (line.length) {
    const [card, file] = line.shift();
    if (!card.gone) await card.send(file);
    schedule(0);
  }
  sending = false;
  schedule(0);
}

async function start() {
  offered = await api("POST", "session");
  const option = (value, text) => new Option(text ?? value, value);
  $("#model").replaceChildren(...offered.models.map(({ name }) => option(name)));
  $("#format").replaceChildren(...offered.formats.map((name) => option(name, name === "input" ? "as the song" : name)));
  keepChoice($("#format"), "flac");
  keepChoice($("#model"), offered.models[0].name);
  $("#limits").textContent = `Up to ${offered.limits.minutes} minutes and ${offered.limits.megabytes} MB each.`;
  $("#model").addEventListener("change", showModel);
  showModel();

  $("#files").addEventListener("change", ({ target }) => {
    add([...target.files]);
    target.value = "";
  });
  const drop = $("#drop");
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => { // beside the field too, lest the browser opens the song
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") add([...event.dataTransfer.files]);
    });
  }
  $("#everything").addEventListener("click", trying(() => {
    const songs = [...cards.values()].filter((card) => card.song?.state === "ready").map((card) => card.id);
    return download({ songs, stems: chosenStems() }, $("#said"));
  }));
  $("#clear").addEventListener("click", trying(async () => {
    all.forEach((card) => card.discard());
    await api("DELETE", "songs");
  }));
  $("#settings").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("visibilitychange", () => document.hidden || schedule(0));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => all.forEach((card) => card.draw()));
  await poll();
}

trying(start)();
