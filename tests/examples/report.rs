//! Prints a table of what the tests of `conformance_tests!` found, and fails if a property failed.
//!
//! `cargo run -p oauth-dance-conformance --example report [target/conformance]`

#![allow(clippy::print_stdout)]

use std::path::Path;
use std::process::ExitCode;

use oauth_dance_conformance::{PROPERTIES, Report};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "target/conformance".to_owned());
    let reports =
        Report::read_all(Path::new(&folder)).map_err(|error| format!("{folder}: {error}; run the tests first"))?;
    println!("| storage | passed | not applicable | skipped | failed | not run |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    for report in &reports {
        let [passed, not_applicable, skipped, failed] =
            [report.passed(), report.not_applicable().len(), report.skipped().len(), report.failed().len()];
        let not_run = PROPERTIES.len() - passed - not_applicable - skipped - failed;
        println!("| {} | {passed} | {not_applicable} | {skipped} | {failed} | {not_run} |", report.name());
    }
    for report in &reports {
        println!("\n{report}");
    }
    let failed = reports.iter().any(|report| !report.failed().is_empty());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
