// What a person types as file ids: numbers and ranges, as in "10003, 10010-10020". Pure.

const number = new Intl.NumberFormat("en");

// {ids, faults, duplicates}: distinct ids in their order, and every fault as {line, token, message}.
// A range is never written out before it is known to be short enough.
export function parseFileIds(text, limits) {
  const ids = new Set();
  const faults = [];
  let asked = 0;
  text.split(/\r\n|\r|\n/).forEach((content, index) => {
    const line = index + 1;
    // "10 - 20" is one range, though spaces separate ids elsewhere.
    const joined = content.replace(/(\d)(\s*)(?:-|–|\.\.)\2(?=\d)/g, "$1-");
    for (const token of joined.split(/[\s,;]+/).filter(Boolean)) {
      const [message, first, last] = read(token, limits);
      if (message) {
        faults.push({ line, token, message });
        continue;
      }
      asked += last - first + 1;
      if (last - first + 1 > limits.count) {
        faults.push({ line, token, message: `has ${number.format(last - first + 1)} ids, and a job may have ${number.format(limits.count)}` });
        continue;
      }
      for (let id = first; id <= last; id += 1) ids.add(id);
    }
  });
  if (!asked && !faults.length) {
    faults.push({ line: 0, token: "", message: "Enter at least one file id." });
  } else if (ids.size > limits.count) {
    faults.push({ line: 0, token: "", message: `These are ${number.format(ids.size)} ids, and a job may have ${number.format(limits.count)}.` });
  }
  return { ids: [...ids], faults, duplicates: Math.max(0, asked - ids.size) };
}

function read(token, limits) {
  const found = /^(\d+)(?:-(\d+))?$/.exec(token);
  if (!found) return ["is neither a file id nor a range"];
  const first = Number(found[1]);
  const last = Number(found[2] ?? found[1]);
  const verbs = found[2] ? ["begins", "ends"] : ["is", "is"];
  if (first < limits.least) return [`${verbs[0]} below ${number.format(limits.least)}, the smallest file id`];
  if (last > limits.most) return [`${verbs[1]} above ${number.format(limits.most)}, the largest file id`];
  if (last < first) return ["is a range that runs backwards"];
  return ["", first, last];
}

export function faultText({ line, token, message }) {
  if (!token) return message;
  const shown = token.length > 40 ? `${token.slice(0, 40)}…` : token;
  return `Line ${line}: “${shown}” ${message}.`;
}
