//! Tests of the key-value service as a whole.

mod bytes;
mod chance;
mod lab;
mod reads;
mod removals;
mod twin;
mod writes;
