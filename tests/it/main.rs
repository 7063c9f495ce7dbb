//! The tests that see Holdfast from outside: the program as scripts use it, and the house rules of its source.

mod cli;
mod house;
mod testkit;
mod verbs;
