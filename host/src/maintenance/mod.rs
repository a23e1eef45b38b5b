//! Bounded housekeeping of the shared structures in Redis.
