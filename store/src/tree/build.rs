//! Writes the pages of one directory while its entries appear.
