// Programs: constants out of base64, and one operation after the other.

// Read the constants of a page: flat arrays, by their numbers.
function readNumbers({ bits16, bits32, places }) {
  const short = fromHalf(new Uint16Array(bytes(bits16)));
  const all = { 16: short, 32: new Float32Array(bytes(bits32)) };
  return places.map(([bits, start, length]) => all[bits].subarray(start, start + length));
}

function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
}

// IEEE half precision: a sign, five bits of exponent, ten of fraction.
function fromHalf(words) {
  return Float32Array.from(words, (word) => {
    const sign = word & 0x8000 ? -1 : 1;
    const exponent = (word >> 10) & 0x1f;
    const fraction = (word & 0x3ff) / 1024;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction);
  });
}

// Run a program on flat arrays; return its results.
function run({ operations, results }, numbers, given) {
  const values = [...given];
  const value = (place) => (place < 0 ? numbers[-1 - place] : values[place]);
  for (const operation of operations) {
    values.push(OPERATIONS[operation.do](operation, ...operation.of.map(value)));
  }
  return results.map(value);
}
