//! Tests of the whole: everything below one binary, so that it is linked once.

mod decoder;
