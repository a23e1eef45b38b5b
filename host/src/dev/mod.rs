//! The development loop: build, validate, publish, say so.
