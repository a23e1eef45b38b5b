//! Everything that lies in Redis: one file of keys, one Lua file a transition, and their typed calls.
