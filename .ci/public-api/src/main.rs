//! Prints the public API that a file of rustdoc's JSON describes, one item a line.

use std::error::Error;
use std::{env, fs};

use public_api::Builder;

fn main() -> Result<(), Box<dyn Error>> {
    let [json, snapshot] = env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "usage: JSON SNAPSHOT")?;
    let api = Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()?;
    fs::write(snapshot, api.to_string())?;
    Ok(())
}
