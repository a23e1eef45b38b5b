//! The composition root: from a configuration to running services, and back to silence.
