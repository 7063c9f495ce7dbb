<<<<<<< HEAD
//! The tests that see Holdfast from outside: the program as scripts use it, and the house rules of its source.

mod cli;
mod house;
mod testkit;
=======
//! Tests of the whole: everything below one binary, so that it is linked once.

mod decoder;
>>>>>>> h-decoder
