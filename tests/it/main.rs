//! The tests that see Holdfast from outside: the program as people and scripts use it, and the house rules of its source.

mod cli;
mod compare;
mod house;
mod messages;
mod mount;
mod nasty;
mod roundtrip;
mod testkit;
mod vault;
