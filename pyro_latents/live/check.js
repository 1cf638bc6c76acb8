// Compare the page with torch: what each step makes of some arguments was written into the page.

// Return the largest difference of each step, relative to values beyond one, and how many numbers
// were compared.
function check(page, numbers) {
  const differences = page.steps.map(() => 0);
  let count = 0;
  for (const { step, given, expected } of page.checks) {
    const found = run(page.steps[step], numbers, given.map((n) => numbers[n]));
    expected.forEach((n, i) => {
      const wanted = numbers[n];
      const unit = wanted.reduce((largest, a) => Math.max(largest, Math.abs(a)), 1);
      wanted.forEach((a, place) => {
        const apart = Math.abs(found[i][place] - a) / unit;
        // What is not a number is as far off as can be.
        differences[step] = Math.max(differences[step], apart >= 0 ? apart : Infinity);
      });
      count += wanted.length;
    });
  }
  return { differences, count };
}
