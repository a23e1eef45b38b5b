//! Files that changed and have settled.
