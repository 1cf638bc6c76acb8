// The operations of programs: each takes its sizes and flat arrays, and returns a new flat array.

// Of one number of each argument at a time.
const MAPS = {
  abs: Math.abs, cos: Math.cos, exp: Math.exp, expm1: Math.expm1, floor: Math.floor,
  log: Math.log, log1p: Math.log1p, sign: Math.sign, sin: Math.sin, sqrt: Math.sqrt,
  tanh: Math.tanh, atan2: Math.atan2, pow: Math.pow,
  neg: (a) => -a,
  erf: errorFunction,
  reciprocal: (a) => 1 / a,
  relu: (a) => (a > 0 ? a : 0),
  rsqrt: (a) => 1 / Math.sqrt(a),
  sigmoid: (a) => 1 / (1 + Math.exp(-a)),
  logical_not: (a) => Number(!a),
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
  maximum: (a, b) => (a > b ? a : b),
  minimum: (a, b) => (a < b ? a : b),
  eq: (a, b) => Number(a === b),
  ne: (a, b) => Number(a !== b),
  lt: (a, b) => Number(a < b),
  le: (a, b) => Number(a <= b),
  gt: (a, b) => Number(a > b),
  ge: (a, b) => Number(a >= b),
  logical_and: (a, b) => Number(a && b ? 1 : 0),
  logical_or: (a, b) => Number(a || b ? 1 : 0),
  where: (a, b, c) => (a ? b : c),
};

// Of a row of numbers.
const REDUCTIONS = {
  sum: (row) => row.reduce((a, b) => a + b, 0),
  mean: (row) => row.reduce((a, b) => a + b, 0) / row.length,
  amax: (row) => row.reduce((a, b) => Math.max(a, b)),
  amin: (row) => row.reduce((a, b) => Math.min(a, b)),
  argmax: (row) => row.indexOf(row.reduce((a, b) => Math.max(a, b))),
  logsumexp: (row) => {
    const largest = row.reduce((a, b) => Math.max(a, b));
    return largest + Math.log(row.reduce((sum, a) => sum + Math.exp(a - largest), 0));
  },
  argmin: (row) => row.indexOf(row.reduce((a, b) => Math.min(a, b))),
};

const OPERATIONS = {
  view({ size, lengths, strides, offset }, x) {
    const made = new Float64Array(size);
    const at = lengths.map(() => 0);
    for (let i = 0, place = offset; i < size; i++) {
      made[i] = x[place];
      for (let d = lengths.length - 1; d >= 0; d--) {
        place += strides[d];
        if (++at[d] < lengths[d]) break;
        place -= strides[d] * lengths[d];
        at[d] = 0;
      }
    }
    return made;
  },

  pick({ size, fill }, x, index) {
    const made = new Float64Array(size);
    for (let i = 0; i < size; i++) made[i] = index[i] < 0 ? fill : x[index[i]];
    return made;
  },

  map({ size, by }, ...given) {
    const made = new Float64Array(size);
    const f = MAPS[by];
    // An array of one number is that number for all.
    const [a, b, c] = given;
    const [da, db, dc] = given.map((x) => Number(x.length > 1));
    if (given.length === 1) for (let i = 0; i < size; i++) made[i] = f(a[i]);
    else if (given.length === 2) for (let i = 0; i < size; i++) made[i] = f(a[i * da], b[i * db]);
    else for (let i = 0; i < size; i++) made[i] = f(a[i * da], b[i * db], c[i * dc]);
    return made;
  },

  product({ size, batch, rows, inner, columns }, x, y) {
    const made = new Float64Array(size);
    const shared = y.length === inner * columns;
    for (let n = 0; n < batch; n++) {
      const from = shared ? 0 : n * inner * columns;
      for (let r = 0; r < rows; r++) {
        const row = (n * rows + r) * columns;
        for (let k = 0; k < inner; k++) {
          const factor = x[(n * rows + r) * inner + k];
          if (factor === 0) continue; // as after most rectifiers
          const at = from + k * columns;
          for (let c = 0; c < columns; c++) made[row + c] += factor * y[at + c];
        }
      }
    }
    return made;
  },

  convolve,

  spread,

  fold({ size, made, given, ...filter }, x) {
    const found = new Float64Array(size);
    const places = underFilter(filter, [1, ...given], made);
    const [taps, area] = [places[0].length, made[1] * made[2]];
    for (let row = 0; row < made[0] * taps; row++) {
      const to = Math.floor(row / taps) * area;
      places.forEach((under, p) => {
        const at = under[row % taps];
        if (at >= 0) found[to + at] += x[row * places.length + p];
      });
    }
    return found;
  },

  sample({ size, image, made, border, corners }, x, grid) {
    const found = new Float64Array(size);
    const [batch, channels, height, width] = image;
    const pixels = made[0] * made[1];
    // From -1 and 1 at the outer pixels' centres, or at their edges.
    const place = (g, n) => (corners ? ((g + 1) * (n - 1)) / 2 : ((g + 1) * n - 1) / 2);
    const inside = (p, n) => (border ? Math.min(Math.max(p, 0), n - 1) : p);
    for (let n = 0; n < batch; n++) {
      for (let p = 0; p < pixels; p++) {
        const at = 2 * (n * pixels + p);
        const px = inside(place(grid[at], width), width);
        const py = inside(place(grid[at + 1], height), height);
        const [left, top] = [Math.floor(px), Math.floor(py)];
        const [right, below] = [px - left, py - top];
        for (let c = 0; c < channels; c++) {
          const from = (n * channels + c) * height;
          const read = (y, z) =>
            y < 0 || y >= height || z < 0 || z >= width ? 0 : x[(from + y) * width + z];
          found[(n * channels + c) * pixels + p] =
            (1 - below) * ((1 - right) * read(top, left) + right * read(top, left + 1)) +
            below * ((1 - right) * read(top + 1, left) + right * read(top + 1, left + 1));
        }
      }
    }
    return found;
  },

  exponential({ size, side }, x) {
    const made = new Float64Array(size);
    const square = side * side;
    for (let from = 0; from < size; from += square) {
      made.set(exponentialOf(x.subarray(from, from + square), side), from);
    }
    return made;
  },

  join({ size, outer, inner }, ...parts) {
    const made = new Float64Array(size);
    let to = 0;
    for (let o = 0; o < outer; o++) {
      parts.forEach((part, number) => {
        made.set(part.subarray(o * inner[number], (o + 1) * inner[number]), to);
        to += inner[number];
      });
    }
    return made;
  },

  reduce({ size, inner, by }, x) {
    const made = new Float64Array(size);
    for (let i = 0; i < size; i++) {
      made[i] = REDUCTIONS[by](x.subarray(i * inner, (i + 1) * inner));
    }
    return made;
  },

  rows({ size, width, count }, x, index) {
    const made = new Float64Array(size);
    index.forEach((row, i) => {
      const from = (row < 0 ? row + count : row) * width;
      made.set(x.subarray(from, from + width), i * width);
    });
    return made;
  },
};

// What lies under the filter at a pixel goes into one row, whose products with the weights of each
// channel made are long sums: of four channels at a time, which takes a third of the time.
function convolve({ size, batch, groups, ...sizes }, x, weight) {
  const { given, made } = sizes;
  const found = new Float64Array(size);
  const places = underFilter(sizes, made, given);
  const [taps, pixels, area] = [places[0].length, made[1] * made[2], given[1] * given[2]];
  const [inputs, outputs] = [given[0] / groups, made[0] / groups];
  const length = inputs * taps;
  const row = new Float64Array(length);
  for (let part = 0; part < batch * groups; part++) {
    const first = (part % groups) * outputs * length;
    for (let p = 0; p < pixels; p++) {
      for (let i = 0, at = 0; i < inputs; i++) {
        const from = (part * inputs + i) * area;
        for (let t = 0; t < taps; t++) row[at++] = places[p][t] < 0 ? 0 : x[from + places[p][t]];
      }
      for (let o = 0; o < outputs; o += 4) {
        // Beyond the last channel, that comes again.
        const four = [0, 1, 2, 3].map((k) => Math.min(o + k, outputs - 1));
        const [a, b, c, d] = four.map((output) => first + output * length);
        let [s0, s1, s2, s3] = [0, 0, 0, 0];
        for (let k = 0; k < length; k++) {
          const value = row[k];
          s0 += value * weight[a + k];
          s1 += value * weight[b + k];
          s2 += value * weight[c + k];
          s3 += value * weight[d + k];
        }
        [s0, s1, s2, s3].forEach((sum, k) => {
          if (o + k < outputs) found[(part * outputs + o + k) * pixels + p] = sum;
        });
      }
    }
  }
  return found;
}

// Transposed: what the channels of a pixel give to all under the filter is one row of long sums.
function spread({ size, batch, groups, ...sizes }, x, weight) {
  const { given, made } = sizes;
  const found = new Float64Array(size);
  const places = underFilter(sizes, given, made);
  const [taps, pixels, area] = [places[0].length, given[1] * given[2], made[1] * made[2]];
  const [inputs, outputs] = [given[0] / groups, made[0] / groups];
  const length = outputs * taps;
  const row = new Float64Array(length);
  for (let part = 0; part < batch * groups; part++) {
    const first = (part % groups) * inputs;
    for (let p = 0; p < pixels; p++) {
      row.fill(0);
      for (let i = 0; i < inputs; i += 4) {
        const inside = [0, 1, 2, 3].map((k) => Math.min(i + k, inputs - 1));
        const [a, b, c, d] = inside.map((input) => (first + input) * length);
        // Beyond the last channel, that comes again, without weight.
        const [x0, x1, x2, x3] = inside.map((input, k) =>
          i + k < inputs ? x[(part * inputs + input) * pixels + p] : 0,
        );
        if (!(x0 || x1 || x2 || x3)) continue; // as after most rectifiers
        for (let k = 0; k < length; k++) {
          row[k] += x0 * weight[a + k] + x1 * weight[b + k];
          row[k] += x2 * weight[c + k] + x3 * weight[d + k];
        }
      }
      for (let o = 0, at = 0; o < outputs; o++) {
        const to = (part * outputs + o) * area;
        for (let t = 0; t < taps; t++, at++) {
          if (places[p][t] >= 0) found[to + places[p][t]] += row[at];
        }
      }
    }
  }
  return found;
}

// For each pixel of one image, the pixels of another that the filter covers; -1 beyond its border.
function underFilter({ kernel, stride, padding, dilation }, [, rows, columns], [, height, width]) {
  return Array.from({ length: rows * columns }, (_, p) => {
    const [top, left] = [Math.floor(p / columns) * stride[0], (p % columns) * stride[1]];
    return Int32Array.from({ length: kernel[0] * kernel[1] }, (_, tap) => {
      const y = top - padding[0] + Math.floor(tap / kernel[1]) * dilation[0];
      const x = left - padding[1] + (tap % kernel[1]) * dilation[1];
      return y < 0 || y >= height || x < 0 || x >= width ? -1 : y * width + x;
    });
  });
}

// By a series after halving until it is short, then squared as often.
function exponentialOf(matrix, side) {
  let length = 0;
  for (let c = 0; c < side; c++) {
    let column = 0;
    for (let r = 0; r < side; r++) column += Math.abs(matrix[r * side + c]);
    length = Math.max(length, column);
  }
  const halvings = length > 0.5 ? Math.ceil(Math.log2(length / 0.5)) : 0;
  const short = Float64Array.from(matrix, (a) => a / 2 ** halvings);
  const sizes = { size: side * side, batch: 1, rows: side, inner: side, columns: side };
  const product = (x, y) => OPERATIONS.product(sizes, x, y);
  let sum = new Float64Array(side * side);
  for (let i = 0; i < side; i++) sum[i * side + i] = 1;
  let term = sum.slice();
  for (let k = 1; k <= 14; k++) {
    term = product(term, short).map((a) => a / k);
    sum = sum.map((a, i) => a + term[i]);
  }
  for (let k = 0; k < halvings; k++) sum = product(sum, sum);
  return sum;
}

// Abramowitz and Stegun 7.1.26: to 1.5e-7.
function errorFunction(a) {
  const t = 1 / (1 + 0.3275911 * Math.abs(a));
  const series = [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592];
  const sum = series.reduce((found, factor) => (found + factor) * t, 0);
  return Math.sign(a) * (1 - sum * Math.exp(-a * a));
}
