// What the pages share.
export const $ = (selector, within = document) => within.querySelector(selector);

export async function api(method, path, body) {
  const options = { method, headers: body ? { "Content-Type": "application/json" } : {} };
  if (body) options.body = JSON.stringify(body);
  let answer;
  try {
    answer = await fetch(`api/${path}`, options);
  } catch {
    throw new Error("separator does not answer; is its command still running?");
  }
  const value = await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(value?.error ?? `${answer.status} ${answer.statusText}`);
  return value;
}

export const clock = (seconds) => {
  const whole = Math.max(0, Math.round(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
};
