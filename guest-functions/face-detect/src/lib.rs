//! Finds faces in a photograph: JPEG or PNG in, rectangles as JSON out.

pub mod cascade;
pub mod detector;
pub mod grey;
mod jpeg;
#[cfg(any(test, feature = "pack"))]
pub mod pack;
pub mod picture;
