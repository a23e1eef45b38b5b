// Checks the check digit of a card number.

import { exit, input, log, output } from "./wasi";

const digits = String.UTF8.decode(input()).split(" ").join("").trim();
if (digits == "later") {
  log("not yet");
  exit(75);
}
output(String.UTF8.encode(isValid(digits) ? "valid" : "invalid"));

/** The algorithm of Luhn: every second digit from the right counts double. */
function isValid(digits: string): bool {
  let sum = 0;
  for (let n = 0; n < digits.length; n++) {
    const code = digits.charCodeAt(digits.length - 1 - n);
    if (code < 48 || code > 57) {
      throw new Error("`" + digits + "` is not a number");
    }
    let digit = code - 48;
    if (n % 2 == 1) {
      digit *= 2;
      if (digit > 9) digit -= 9;
    }
    sum += digit;
  }
  return digits.length > 1 && sum % 10 == 0;
}
