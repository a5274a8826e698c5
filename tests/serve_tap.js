// Keeps what the page sends to the loudspeakers, and what goes wrong on it.
window.problems = [];
for (const kind of ["error", "unhandledrejection", "securitypolicyviolation"]) {
  addEventListener(kind, ({ message, violatedDirective, reason }) => {
    problems.push(message || violatedDirective || String(reason));
  });
}
const code = `registerProcessor("tap", class extends AudioWorkletProcessor {
  process([input]) {
    if (input.length) this.port.postMessage(input.map((channel) => channel.slice()));
    return true;
  }
})`;
const { connect } = AudioNode.prototype;
const { resume } = AudioContext.prototype;
AudioNode.prototype.connect = function (target, ...rest) {
  if (target instanceof AudioDestinationNode) this.context.last = this;
  return connect.call(this, target, ...rest);
};
AudioContext.prototype.resume = async function () {
  if (!this.tap) {
    const blob = new Blob([code], { type: "text/javascript" });
    await this.audioWorklet.addModule(URL.createObjectURL(blob));
    const options = { channelCount: 2, channelCountMode: "explicit" };
    this.tap = new AudioWorkletNode(this, "tap", options);
    this.tap.port.onmessage = ({ data }) => heard.push(data);
    connect.call(this.last, this.tap);
  }
  return resume.call(this);
};
window.heard = [];
window.sound = () => { // base64 of little-endian floats: of each block its left, then its right
  const samples = Float32Array.from(heard.flatMap(([left, right]) => [...left, ...right]));
  const bytes = new Uint8Array(samples.buffer);
  let text = "";
  for (let at = 0; at < bytes.length; at += 32768) {
    text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  }
  return btoa(text);
};
