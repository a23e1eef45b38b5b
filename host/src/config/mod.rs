//! What the program is told: flags over environment over file over defaults, checked once.
