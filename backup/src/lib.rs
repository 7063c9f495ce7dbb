//! stub

pub mod retention;
pub mod source_name;
