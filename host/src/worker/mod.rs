//! Takes jobs under a lease, has them run, and settles them.
