//! Runs one attempt and returns its outcome; never touches the queue.
