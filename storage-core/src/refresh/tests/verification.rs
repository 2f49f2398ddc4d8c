//! A new token is verified after it was stored, and the record may change in the meantime.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::bench::{Bench, Process};
use super::edits::edit;
use crate::record::Record;
use crate::refresh::{RefreshError, Verdict};
use crate::storage::{Precondition, TokenStorage as _};

/// The record has another version after the verification, and still contains the token.
#[tokio::test(start_paused = true)]
async fn unusable_token_is_deleted_after_an_edit() {
    let different = Verdict::DifferentSubject { cause: "another subject".to_owned() };
    for (verdict, edits) in [(different.clone(), 1), (different, 3), (Verdict::Ended, 1)] {
        let (bench, process, caller) = verifying(verdict).await;
        for _ in 0..edits {
            edit(&bench, "note").await;
        }
        assert!(matches!(caller.await.unwrap(), Err(RefreshError::NotConnected)));
        process.finish().await;
        assert!(bench.stored().await.is_none(), "the token is deleted");
        assert_eq!(bench.provider.state().revoked, ["access-0-1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn login_during_a_verification_stays() {
    let (bench, process, caller) = verifying(Verdict::Ended).await;
    bench.login().await;
    assert!(matches!(caller.await.unwrap(), Err(RefreshError::NotConnected)));
    process.finish().await;
    assert_eq!(bench.access().await, "access-1-0");
}

/// A process with a newer version or another key may write during the verification.
#[tokio::test(start_paused = true)]
async fn unreadable_record_during_a_verification_stays() {
    let (bench, process, caller) = verifying(Verdict::Ended).await;
    bench.shared.put(&bench.key, &Record::new("unreadable"), Precondition::Always).await.unwrap();
    assert!(matches!(caller.await.unwrap(), Err(RefreshError::NotConnected)));
    process.finish().await;
    assert_eq!(bench.shared.get(&bench.key).await.unwrap().unwrap().value.payload, b"unreadable");
}

/// A refresh whose token is stored, and is being verified.
async fn verifying(verdict: Verdict) -> (Bench, Process, JoinHandle<Result<String, RefreshError>>) {
    let bench = Bench::expired().await;
    bench.provider.state().verdict = Some(verdict);
    bench.provider.state().verified_after = Duration::from_secs(1);
    let process = bench.process();
    let caller = process.spawn_usable();
    sleep(Duration::from_millis(500)).await;
    assert_eq!(bench.access().await, "access-0-1");
    (bench, process, caller)
}
