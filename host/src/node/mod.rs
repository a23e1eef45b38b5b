//! What the node says about itself: heartbeats, health, sessions.
