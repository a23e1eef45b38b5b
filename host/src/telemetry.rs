//! Logs: the names of fields, and where lines go.
