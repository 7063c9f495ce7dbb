//! The tests that see Holdfast from outside: the program as scripts use it, its bytes as a stranger reads them, and the
//! house rules of its source. One binary, so that it is linked once.

mod cli;
mod crash;
mod damage;
mod decoder;
mod faults;
mod house;
mod testkit;
mod trouble;
