import { job, log, progress, reject, retry } from "../../host/templates/javascript/src/wasmhost.js";

// Prices in cents, so that nothing is lost to rounding.
const taxes = { books: 7, tools: 19 };

export const run = job(({ args, attempt }) => {
  const lines = args?.lines ?? [];
  if (lines.length === 0) {
    throw reject("an order needs lines");
  }
  if (args.busy && attempt < args.busy) {
    throw retry("the shop is busy", 500);
  }
  let net = 0;
  let tax = 0;
  lines.forEach(({ what, kind, cents, n }, at) => {
    // A kind without a tax is a mistake in this program: an ordinary error, which says where.
    const percent = taxes[kind].valueOf();
    net += cents * n;
    tax += Math.round((cents * n * percent) / 100);
    log.debug("added", n, what);
    progress((100 * (at + 1)) / lines.length, what);
  });
  return { net, tax, gross: net + tax };
});
