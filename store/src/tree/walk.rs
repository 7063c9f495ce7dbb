//! Reads directories: lookups, listings from any place, whole walks.
