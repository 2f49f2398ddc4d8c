//! With a key ring no secret reaches the storage, and the storage reveals no payload.
//!
//! There are two lines of defence. Sealed tokens protect against anyone who can read the medium, and that is mostly the work
//! of the core. A storage must in addition not copy payloads to places that more people can read: logs, error messages and
//! `Debug` output. Applications may store tokens unsealed during development, so payloads count as secret in either case.

use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{
    KeyRing, OAuth1Token, OAuth2Token, Precondition, Record, SealingKey, StorageError, Timestamp, Token, TokenKey,
    TokenStorage, Tokens, TokensError, Version, Versioned,
};
use serde_json::json;

use crate::calls::Call;
use crate::harness::Fault;
use crate::leaks::find_leak;
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq, ensure_error};
use crate::patient::Patient;
use crate::show::{Show as _, error_name};
use crate::tested_storage::{TestedStorage, key, list_all};

/// Occurs in every secret of [`token`], and nowhere else.
const CANARY: &str = "CANARY-9f1c";
/// The beginning and the end of a payload, to detect an excerpt of it.
const EDGE: &str = "Sv3rD";

/// A token of either kind is returned completely, sealed or not, including everything that the provider added.
///
/// Writes through the `Tokens` of the core, as an application does, with a token of OAuth 2.0, one of OAuth 1.0a and an
/// empty one.
pub async fn tokens_come_back_whole(on: Arc<TestedStorage>) -> PropertyResult {
    let key = key("alice")?;
    let mut oauth1 = OAuth1Token::new(CANARY, CANARY);
    oauth1.extra = json!({"screen_name": "alice"}).as_object().cloned().unwrap_or_default().into();
    let storage = Arc::clone(on.storage());
    for tokens in [Tokens::sealed(Arc::clone(&storage), KeyRing::generate()), Tokens::dangerous_plaintext(storage)] {
        for token in [token(), oauth1.clone().into(), OAuth2Token::bearer("").into()] {
            let version = tokens.put(&key, &token, Precondition::Always).await?;
            let found = tokens.get(&key).await?;
            ensure_eq!(found, Some(Versioned::new(token, version)), "{} of a token after put", Call::get(&key));
        }
    }
    Ok(())
}

/// Nothing of a sealed token is on the medium: neither in plain text nor in hexadecimal, base64, percent-encoded,
/// reversed or otherwise encoded.
///
/// An unsealed payload is written too and has to be found, so that a dump of the wrong data does not pass.
pub async fn sealed_tokens_leave_no_trace(on: Arc<TestedStorage>) -> PropertyResult {
    let plain = Record::new("MARKER-7e2b");
    on.storage().put(&key("marker")?, &plain, Precondition::Always).await?;
    let tokens = sealed(&on, KeyRing::generate());
    for user in 0..5 {
        let key = key(&format!("user{user}"))?;
        let version = tokens.put(&key, &token(), Precondition::Always).await?;
        tokens.put(&key, &token(), Precondition::Version(version)).await?;
    }
    let dump = on.harness().raw_dump().await?;
    // Otherwise a dump of the wrong data would always pass.
    ensure!(
        find_leak(&dump, "MARKER-7e2b").is_some(),
        "the dump of the medium does not contain the payload \"MARKER-7e2b\", which was put unsealed"
    );
    if let Some(form) = find_leak(&dump, CANARY) {
        return Err(Stop::failed(format_args!("the dump of the medium contains {CANARY:?} of a sealed token {form}")));
    }
    Ok(())
}

/// Neither the `Debug` output of the storage nor its log contains a payload.
///
/// Tokens may be stored in plain text during development, and logs are copied to many places. Implement `Debug` by hand
/// for types that contain payloads.
pub async fn printing_shows_no_payload(on: Arc<TestedStorage>) -> PropertyResult {
    on.harness().printed()?;
    let tokens = Tokens::dangerous_plaintext(Arc::clone(on.storage()));
    let version = tokens.put(&key("alice")?, &token(), Precondition::Always).await?;
    tokens.get(&key("alice")?).await?;
    tokens.put(&key("alice")?, &token(), Precondition::Version(version)).await?;
    let secret = Record::new(format!("{EDGE}{CANARY}{EDGE}"));
    let version = on.storage().put(&key("bob")?, &secret, Precondition::Always).await?;
    drop(on.storage().put(&key("bob")?, &secret, Precondition::Absent).await);
    on.storage().get(&key("bob")?).await?;
    if on.capabilities().listable {
        list_all(on.storage().as_ref(), &oauth_dance_core::Filter::everything(), 10).await?;
    }
    on.storage().purge(10).await?;
    let mut printed = on.harness().printed()?;
    on.storage().delete(&key("bob")?, Some(version)).await?;
    printed += &on.harness().printed()?;
    shows_no_secret(&printed)?;
    // Large records, expired ones and purged ones.
    let large = on.accepted_length(200_000) / secret.payload.len();
    let large = Record::new(secret.payload.repeat(large.max(1)));
    on.storage().put(&key("bob")?, &large, Precondition::Always).await?;
    let (zero, short) = (Duration::ZERO, on.units(1).await?);
    for (user, retention) in [("carol", zero), ("dave", short), ("erin", short)] {
        let record = secret.clone().with_retain_for(Some(retention));
        on.storage().put(&key(user)?, &record, Precondition::Always).await?;
    }
    on.pass(25).await?;
    for user in ["bob", "carol", "dave"] {
        on.storage().get(&key(user)?).await?;
    }
    on.storage().delete(&key("dave")?, None).await?;
    on.storage().put(&key("erin")?, &Record::new("x"), Precondition::Always).await?;
    on.storage().purge(100).await?;
    shows_no_secret(&on.harness().printed()?)
}

/// Fails if a text that was printed contains a part of a payload.
fn shows_no_secret(printed: &str) -> PropertyResult {
    for secret in [CANARY, EDGE] {
        if let Some(form) = find_leak(printed.as_bytes(), secret) {
            return Err(Stop::failed(format_args!(
                "the Debug output of the storage, or its log, contains {secret:?} of a payload {form}"
            )));
        }
    }
    Ok(())
}

/// No error contains a payload: neither in `Display` nor in `Debug`, nor in any of its sources. Nor does what is logged
/// when a call fails.
///
/// Provokes as many errors as the harness permits. Check what the driver's errors quote: some contain the values of the
/// failed statement.
pub async fn errors_show_no_payload(on: Arc<TestedStorage>) -> PropertyResult {
    let (alice, secret) = (key("alice")?, Record::new(format!("{EDGE}{}{EDGE}", CANARY.repeat(20))));
    let mut errors: Vec<(Call, StorageError)> = Vec::new();
    on.storage().put(&alice, &secret, Precondition::Always).await?;
    for when in [Precondition::Absent, Precondition::Version(Version::random())] {
        errors.extend(put_error(&on, &alice, &secret, when).await);
    }
    errors.extend(put_error(&on, &key(&"long".repeat(20_000))?, &secret, Precondition::Always).await);
    if let Some(limit) = on.limit_to_try() {
        let large = Record::new(CANARY.repeat(limit / CANARY.len() + 1));
        errors.extend(put_error(&on, &alice, &large, Precondition::Always).await);
    }
    for fault in [Fault::ReadOnly, Fault::Full, Fault::CutReply, Fault::Down] {
        if on.harness().inject(fault).await.is_ok() {
            errors.extend(put_error(&on, &alice, &secret, Precondition::Always).await);
            errors.extend(on.storage().get(&alice).await.err().map(|error| (Call::get(&alice), error)));
            let (other, delete) = (Version::random(), |only| Call::delete(&alice, Some(only)));
            errors.extend(on.storage().delete(&alice, Some(other)).await.err().map(|error| (delete(other), error)));
            on.harness().heal().await?;
        }
    }
    if on.harness().corrupt(&alice).await.is_ok() {
        errors.extend(on.storage().get(&alice).await.err().map(|error| (Call::get(&alice), error)));
        errors.extend(put_error(&on, &alice, &secret, Precondition::Absent).await);
    }
    ensure!(errors.len() >= 2, "put Absent and put with another version, over a record, did not both return errors");
    for (call, error) in &errors {
        let shown = format!("{error:?} {error:#?} {}", crate::outcome::chain(error));
        for secret in [CANARY, EDGE] {
            if let Some(form) = find_leak(shown.as_bytes(), secret) {
                let name = error_name(error);
                let what = format!("the error of {call}, {name}, contains {secret:?} of the payload {form}");
                return Err(Stop::failed(what));
            }
        }
    }
    match on.harness().printed() {
        Ok(printed) => shows_no_secret(&printed),
        Err(_) => Ok(()),
    }
}

/// The error of a `put`, if it fails, with the call.
async fn put_error(
    on: &TestedStorage,
    key: &TokenKey,
    record: &Record,
    when: Precondition,
) -> Option<(Call, StorageError)> {
    let error = on.storage().put(key, record, when).await.err()?;
    Some((Call::put(key, record, when), error))
}

/// A sealed record that is moved to another key, or changed in one byte, does not open, and is not treated as missing.
///
/// The core binds each seal to its key. The storage must return the bytes that are stored under that key, and nothing
/// else.
pub async fn sealed_records_are_bound_to_their_key(on: Arc<TestedStorage>) -> PropertyResult {
    let tokens = sealed(&on, KeyRing::generate());
    let alice = key("alice")?;
    tokens.put(&alice, &token(), Precondition::Always).await?;
    let stolen = stored(&on, &alice).await?;
    for thief in [
        key("bob")?,
        TokenKey::new("google", "alice")?,
        key("alice")?.with_tenant("acme")?,
        key("alice")?.with_account("x")?,
    ] {
        on.storage().put(&thief, &stolen, Precondition::Always).await?;
        ensure_error!(
            tokens.get(&thief).await,
            TokensError::Tampered { .. },
            "get of a record that was moved to {}",
            thief.show()
        );
    }
    for index in (0..stolen.payload.len()).step_by(7) {
        let mut changed = stolen.clone();
        changed.payload[index] ^= 1;
        on.storage().put(&alice, &changed, Precondition::Always).await?;
        let get = Call::get(&alice);
        ensure!(tokens.get(&alice).await.is_err(), "{get} opens a sealed token in which byte {index} was changed");
        let found = stored(&on, &alice).await?;
        ensure!(found == changed, "{get} of a record that does not open has changed the record to {}", found.show());
    }
    Ok(())
}

/// Equal tokens are stored as different bytes.
///
/// Seals are randomized, so that a dump does not show which users have the same token, or whether a token has changed.
pub async fn equal_tokens_are_stored_differently(on: Arc<TestedStorage>) -> PropertyResult {
    let tokens = sealed(&on, KeyRing::generate());
    let mut seen = std::collections::HashSet::new();
    for user in ["alice", "bob", "alice"] {
        tokens.put(&key(user)?, &token(), Precondition::Always).await?;
        let payload = stored(&on, &key(user)?).await?.payload;
        let get = Call::get(&key(user)?);
        ensure!(seen.insert(payload.clone()), "{get} returned the payload of an earlier put: {}", payload.show());
    }
    Ok(())
}

/// `get` and `list` return the id of the key that sealed a record.
///
/// A key rotation uses it to find the records that are still sealed with an older key, without reading their payloads.
pub async fn the_sealing_key_is_recorded(on: Arc<TestedStorage>) -> PropertyResult {
    let rings = [KeyRing::generate(), KeyRing::generate()];
    for (user, ring) in ["alice", "bob"].into_iter().zip(&rings) {
        sealed(&on, ring.clone()).put(&key(user)?, &token(), Precondition::Always).await?;
        ensure_eq!(
            stored(&on, &key(user)?).await?.key_id,
            Some(ring.primary_id()),
            "{}: key_id",
            Call::get(&key(user)?)
        );
    }
    if on.capabilities().listable {
        let listed = list_all(on.storage().as_ref(), &oauth_dance_core::Filter::everything(), 10).await?;
        let ids: std::collections::BTreeSet<_> = listed.into_iter().filter_map(|entry| entry.key_id).collect();
        ensure_eq!(ids, rings.iter().map(KeyRing::primary_id).collect(), "list: the key_ids");
    }
    let error = sealed(&on, rings[1].clone()).get(&key("alice")?).await;
    ensure_error!(
        error,
        TokensError::KeyUnavailable { .. },
        "{} without the key that sealed it",
        Call::get(&key("alice")?)
    );
    Ok(())
}

/// Resealing records while they are being written loses no write, and can be repeated.
///
/// Resealing is a
/// `put` on the condition of the version that was read. If a refresh writes in between, the reseal has to fail with `Conflict`.
pub async fn resealing_loses_no_update(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    let (old, new) = (SealingKey::generate(), SealingKey::generate());
    let storage: Arc<dyn TokenStorage> = Arc::new(Patient(Arc::clone(on.storage())));
    let before = Tokens::sealed(Arc::clone(&storage), KeyRing::new(old.clone()));
    let after = Tokens::sealed(storage, KeyRing::new(new).with_older(old));
    let key = key("alice")?;
    for round in 0..40 {
        before.put(&key, &token(), Precondition::Always).await?;
        let (resealing, target) = (after.clone(), key.clone());
        let resealing = tokio::spawn(async move { resealing.reseal(&target).await });
        // The refresh comes before, between or after the steps of resealing.
        for _ in 0..round / 2 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_micros(200 * (round % 4))).await;
        let refreshed = Token::from(OAuth2Token::bearer(format!("refreshed {round}")));
        after.put(&key, &refreshed, Precondition::Always).await?;
        resealing.await??;
        let found = after.get(&key).await?.map(|found| found.value);
        ensure_eq!(found, Some(refreshed), "round {round}: {} after a put while it was resealed", Call::get(&key));
    }
    before.put(&key, &token(), Precondition::Always).await?;
    ensure!(after.reseal(&key).await?, "reseal({}) of a record sealed with the older key did nothing", key.show());
    ensure!(!after.reseal(&key).await?, "reseal({}) a second time wrote again", key.show());
    ensure_eq!(
        after.get(&key).await?.map(|found| found.value),
        Some(token()),
        "{} after it was resealed",
        Call::get(&key)
    );
    Ok(())
}

fn sealed(on: &TestedStorage, ring: KeyRing) -> Tokens {
    Tokens::sealed(Arc::clone(on.storage()), ring)
}

async fn stored(on: &TestedStorage, key: &TokenKey) -> PropertyResult<Record> {
    let found = on.storage().get(key).await?;
    Ok(found.ok_or_else(|| Stop::failed(format_args!("{} after put is None", Call::get(key))))?.value)
}

/// A token whose secrets all contain the canary.
fn token() -> Token {
    let mut token = OAuth2Token::bearer(format!("access {CANARY}"));
    token.refresh_token = Some(format!("refresh {CANARY}").into());
    token.id_token = Some(format!("id {CANARY}").into());
    token.scope = Some(vec!["repo".to_owned(), "user:email".to_owned()]);
    token.expires_at = Some(Timestamp::from_unix_seconds(4_102_444_800));
    let extra =
        json!({"authed_user": {"access_token": CANARY, "n": [1, 2.5, null]}, "instance_url": "https://x.example"});
    token.extra = extra.as_object().cloned().unwrap_or_default().into();
    token.into()
}
