// Plays the stems of a song in step: pieces of all stems are fetched together and started at the
// same sample of one clock, each stem through a gain of its own.

const PIECE_SECONDS = 5;
const FIRST_SECONDS = 2;
const AHEAD_SECONDS = 10; // scheduled at most
const DELAY_SECONDS = 0.05;
const RAMP_SECONDS = 0.01; // a level that jumps clicks

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Player {
  constructor(song, moved, failed) {
    Object.assign(this, { song, moved, failed, playing: false, run: 0, gains: {}, nodes: {} });
    this.at = 0; // seconds, where it stands or where the present run began
    this.length = song.samples / song.rate;
  }

  get position() {
    if (!this.playing || this.began === null) return this.at;
    return Math.min(this.length, Math.max(this.at, this.at + this.context.currentTime - this.began));
  }

  open() {
    try {
      this.context = new AudioContext({ sampleRate: this.song.rate }); // nothing is resampled between pieces
    } catch {
      this.context = new AudioContext();
    }
    this.master = this.context.createGain();
    this.master.connect(this.context.destination);
    for (const name of this.song.stems) {
      this.nodes[name] = this.context.createGain();
      this.nodes[name].gain.value = this.gains[name] ?? 1;
      this.nodes[name].connect(this.master);
    }
  }

  setGains(gains) {
    this.gains = gains;
    for (const [name, node] of Object.entries(this.nodes)) {
      node.gain.setTargetAtTime(gains[name], this.context.currentTime, RAMP_SECONDS);
    }
  }

  async play() {
    if (!this.context) this.open();
    if (this.at >= this.length - 0.05) this.at = 0;
    const run = ++this.run;
    this.playing = true;
    this.began = null;
    this.sources = [];
    const now = this.context.currentTime;
    for (const name of this.song.stems) this.nodes[name].gain.setValueAtTime(this.gains[name], now);
    await this.context.resume();
    this.tick(run);
    this.schedule(run).catch((error) => {
      if (run !== this.run) return;
      this.pause();
      this.failed(error);
    });
  }

  pause() {
    if (!this.playing) return;
    this.at = this.position;
    this.stop();
    this.moved();
  }

  async seek(seconds) {
    const on = this.playing;
    if (on) this.stop();
    this.at = Math.max(0, Math.min(seconds, this.length));
    this.moved();
    if (on) await this.play();
  }

  stop() {
    this.run++;
    this.playing = false;
    for (const source of this.sources) {
      source.onended = null;
      source.stop();
    }
  }

  release() { // browsers have few contexts
    this.pause();
    this.context?.close();
    this.context = null;
    this.nodes = {};
  }

  tick(run) {
    if (run !== this.run || !this.playing) return;
    if (this.began !== null && this.position >= this.length) {
      this.at = 0;
      this.stop();
    }
    this.moved();
    requestAnimationFrame(() => this.tick(run));
  }

  async schedule(run) {
    const { rate, samples } = this.song;
    let frame = Math.round(this.at * rate);
    let [start, first] = [0, frame]; // this frame sounds at that time
    let seconds = FIRST_SECONDS;
    while (frame < samples) {
      const piece = await this.fetch(frame, Math.round(seconds * rate));
      if (run !== this.run) return;
      const { currentTime } = this.context;
      let when = start + (frame - first) / rate;
      if (when < currentTime) { // the first, or it came too late
        [start, first] = [Math.ceil((currentTime + DELAY_SECONDS) * rate) / rate, frame];
        when = start;
        this.began = start - (frame / rate - this.at);
      }
      for (const [name, buffer] of Object.entries(piece.buffers)) {
        const source = new AudioBufferSourceNode(this.context, { buffer });
        source.connect(this.nodes[name]);
        source.start(when);
        source.onended = () => (this.sources = this.sources.filter((other) => other !== source));
        this.sources.push(source);
      }
      frame += piece.frames;
      seconds = PIECE_SECONDS;
      while (run === this.run && start + (frame - first) / rate - this.context.currentTime > AHEAD_SECONDS) await sleep(250);
      if (run !== this.run) return;
    }
  }

  async fetch(frame, count) {
    const { id, stems, channels, rate } = this.song;
    const answer = await fetch(`api/songs/${id}/samples?start=${frame}&count=${count}`);
    if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? answer.statusText);
    const values = new Float32Array(await answer.arrayBuffer());
    const step = stems.length * channels;
    const frames = values.length / step;
    if (!frames) throw new Error("the song ended early; reload the page");
    const buffers = {};
    stems.forEach((name, stem) => {
      buffers[name] = new AudioBuffer({ length: frames, numberOfChannels: channels, sampleRate: rate });
      for (let channel = 0; channel < channels; channel++) {
        const wave = buffers[name].getChannelData(channel);
        for (let t = 0, from = stem * channels + channel; t < frames; t++, from += step) wave[t] = values[from];
      }
    });
    return { frames, buffers };
  }
}
