//! What the tests share: a real Redis, real guests, the built program.
