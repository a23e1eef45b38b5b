//! Tiny jumpscripts that the tests run. Each reads a word from its payload and does what the word says.
