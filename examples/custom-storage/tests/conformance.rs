//! Tests the whole contract, with one test for each property.

use oauth_dance_example_custom_storage::RedbStorage;

oauth_dance_conformance::conformance_tests!(|| async {
    Ok(RedbStorage::open(tempfile::NamedTempFile::new()?.path())?)
});
