//! The tests that see Holdfast from outside: the program as scripts use it, the house rules of its source, and what it is built of.

mod cli;
mod dependencies;
mod house;
mod testkit;
