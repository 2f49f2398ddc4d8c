use serde_json::json;

use super::*;
use crate::dpop_key::DpopKey;
use crate::memory::MemoryStorage;
use crate::seal::SealingKey;
use crate::time::Timestamp;
use crate::token::{Extra, OAuth1Token, OAuth2Token, Subject};

fn key() -> TokenKey {
    TokenKey::new("github", "alice").unwrap()
}

/// A token in which every field is set.
fn full_token() -> Token {
    let mut token = OAuth2Token::bearer("CANARY-access");
    token.token_type = "bearer".to_owned();
    token.refresh_token = Some("CANARY-refresh".into());
    token.id_token = Some("CANARY-id".into());
    token.subject = Some(Subject { issuer: "https://p.example".to_owned(), subject: "248289761001".to_owned() });
    token.scope = Some(vec!["repo".to_owned(), "user:email".to_owned()]);
    token.expires_at = Some(Timestamp::from_unix_seconds(4_102_444_800));
    token.issued_at = Some(Timestamp::from_unix_seconds(1_700_000_000));
    token.dpop_key = DpopKey::parse("CANARY-dpop-key-of-43-characters-in-base64s");
    assert!(token.dpop_key.is_some());
    let extra = json!({"authed_user": {"access_token": "CANARY-extra", "n": [1, 2.5, null]}, "instance_url": "x"});
    token.extra = Extra::from(extra.as_object().unwrap().clone());
    token.into()
}

#[tokio::test]
async fn every_token_round_trips() {
    let mut oauth1 = OAuth1Token::new("token", "secret");
    oauth1.extra = Extra::from(json!({"screen_name": "alice"}).as_object().unwrap().clone());
    let mut unscoped = OAuth2Token::bearer("");
    unscoped.scope = Some(Vec::new());
    let all = [full_token(), oauth1.into(), unscoped.into(), OAuth2Token::bearer("\0\u{1F511}\r\n\"").into()];

    for tokens in
        [Tokens::sealed(MemoryStorage::new(), KeyRing::generate()), Tokens::dangerous_plaintext(MemoryStorage::new())]
    {
        for token in &all {
            let version = tokens.put(&key(), token, Precondition::Always).await.unwrap();
            let found = tokens.get(&key()).await.unwrap();
            assert_eq!(found, Some(Versioned::new(token.clone(), version)));
        }
    }
}

#[tokio::test]
async fn no_secret_is_stored_or_printed() {
    let storage = MemoryStorage::new();
    let ring = KeyRing::generate();
    let tokens = Tokens::sealed(storage.clone(), ring.clone());
    tokens.put(&key(), &full_token(), Precondition::Always).await.unwrap();

    let record = storage.get(&key()).await.unwrap().unwrap().value;
    assert!(!String::from_utf8_lossy(&record.payload).contains("CANARY"));
    assert_eq!(record.key_id, Some(ring.primary_id()));
    assert_eq!(record.expires_at, Some(Timestamp::from_unix_seconds(4_102_444_800)));
    let printed = format!("{:?} {record:?} {tokens:?} {storage:?}", tokens.get(&key()).await.unwrap());
    assert!(printed.contains("authed_user") && !printed.contains("CANARY"), "{printed}");
}

#[tokio::test]
async fn record_moved_to_another_key_is_rejected() {
    for (tokens, storage) in sealed_and_plain() {
        tokens.put(&key(), &full_token(), Precondition::Always).await.unwrap();
        let stolen = storage.get(&key()).await.unwrap().unwrap().value;
        let bob = TokenKey::new("github", "bob").unwrap();
        storage.put(&bob, &stolen, Precondition::Always).await.unwrap();
        let error = tokens.get(&bob).await.unwrap_err();
        assert!(matches!(error, TokensError::Tampered { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn sealed_and_plain_records_are_not_interchangeable() {
    let storage = MemoryStorage::new();
    let sealed = Tokens::sealed(storage.clone(), KeyRing::generate());
    let plain = Tokens::dangerous_plaintext(storage);
    plain.put(&key(), &full_token(), Precondition::Always).await.unwrap();
    assert!(matches!(sealed.get(&key()).await, Err(TokensError::NotSealed { .. })));
    sealed.put(&key(), &full_token(), Precondition::Always).await.unwrap();
    assert!(matches!(plain.get(&key()).await, Err(TokensError::NoKeyRing { .. })));
}

#[tokio::test]
async fn another_storage_has_the_same_sealing() {
    let (one, two) = (MemoryStorage::new(), MemoryStorage::new());
    let tokens = Tokens::sealed(one.clone(), KeyRing::generate()).with_retention(Duration::from_secs(60));
    tokens.clone().with_storage(Arc::new(two.clone())).put(&key(), &full_token(), Precondition::Always).await.unwrap();
    assert_eq!(tokens.get(&key()).await.unwrap(), None);

    let record = two.get(&key()).await.unwrap().unwrap().value;
    assert!(record.retain_for.is_some() && record.key_id.is_some());
    one.put(&key(), &record, Precondition::Always).await.unwrap();
    assert_eq!(tokens.get(&key()).await.unwrap().unwrap().value, full_token());
}

#[tokio::test]
async fn reseal_uses_the_first_key_and_retains_the_rest() {
    let storage = MemoryStorage::new();
    let old = SealingKey::generate();
    let before = Tokens::sealed(storage.clone(), KeyRing::new(old.clone())).with_retention(Duration::from_secs(60));
    before.put(&key(), &full_token(), Precondition::Always).await.unwrap();

    let ring = KeyRing::new(SealingKey::generate()).with_older(old);
    let after = Tokens::sealed(storage.clone(), ring.clone());
    assert!(after.reseal(&key()).await.unwrap());
    assert!(!after.reseal(&key()).await.unwrap(), "the record is sealed with the first key already");
    let record = storage.get(&key()).await.unwrap().unwrap().value;
    assert_eq!(record.key_id, Some(ring.primary_id()));
    assert!(record.retain_for.is_some_and(|left| left <= Duration::from_secs(60)));
    assert_eq!(after.get(&key()).await.unwrap().unwrap().value, full_token());
    assert!(matches!(before.get(&key()).await, Err(TokensError::KeyUnavailable { .. })));
}

#[tokio::test]
async fn unreadable_records_are_typed_errors_and_remain() {
    let good = wire::encode(&key(), &Stored::idle(full_token())).to_vec();
    let newer = String::from_utf8(good.clone()).unwrap().replace("\"format\":2", "\"format\":4");
    let garbage: Vec<Vec<u8>> =
        vec![vec![], vec![0], b"{".to_vec(), b"{}".to_vec(), b"null".to_vec(), vec![1; 500], good[..40].to_vec()];
    for (tokens, storage) in sealed_and_plain() {
        for payload in &garbage {
            storage.put(&key(), &Record::new(payload.clone()), Precondition::Always).await.unwrap();
            assert!(tokens.get(&key()).await.is_err(), "{payload:?}");
            assert_eq!(storage.get(&key()).await.unwrap().unwrap().value.payload, *payload);
        }
    }
    let (plain, storage) = sealed_and_plain().pop().unwrap();
    storage.put(&key(), &Record::new(newer), Precondition::Always).await.unwrap();
    let error = plain.get(&key()).await.unwrap_err();
    assert!(matches!(error, TokensError::NewerFormat { found: 4, .. }), "{error:?}");
}

fn sealed_and_plain() -> Vec<(Tokens, MemoryStorage)> {
    let (one, two) = (MemoryStorage::new(), MemoryStorage::new());
    vec![(Tokens::sealed(one.clone(), KeyRing::generate()), one), (Tokens::dangerous_plaintext(two.clone()), two)]
}
