use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, header};
use oauth_dance_core::{Clock, MemoryStorage, OAuth2Token, Precondition, Timestamp};

use super::*;

fn builder(storage: Arc<MemoryStorage>) -> OAuthBuilder {
    OAuth::builder("http://localhost:3000", storage, KeyRing::generate())
}

#[tokio::test]
async fn the_order_of_storage_settings_does_not_matter() {
    let hour = Duration::from_secs(3600);
    for retention_first in [true, false] {
        let storage = Arc::new(MemoryStorage::new());
        let builder = builder(Arc::clone(&storage)).anonymous_users();
        let oauth = match retention_first {
            true => builder.retention(hour).dangerous_plaintext_tokens(),
            false => builder.dangerous_plaintext_tokens().retention(hour),
        };
        let oauth = oauth.build().unwrap();
        let key = User::new("alice").key("acme").unwrap();
        oauth.tokens().put(&key, &OAuth2Token::bearer("token").into(), Precondition::Always).await.unwrap();
        let record = storage.get(&key).await.unwrap().unwrap().value;
        assert!(record.retain_for.is_some_and(|left| left <= hour), "{retention_first}");
        assert!(record.key_id.is_none(), "{retention_first}");
    }
}

#[test]
fn the_order_of_clock_and_users_does_not_matter() {
    for clock_first in [true, false] {
        let seconds = Arc::new(AtomicU64::new(1_000));
        let reading = Arc::clone(&seconds);
        let clock = Clock::new(move || Timestamp::from_unix_seconds(reading.load(Ordering::SeqCst)));
        let builder = builder(Arc::default());
        let oauth = match clock_first {
            true => builder.clock(clock).anonymous_users(),
            false => builder.anonymous_users().clock(clock),
        };
        let oauth = oauth.build().unwrap();
        let UserSource::Anonymous(browsers) = &oauth.inner.users else { panic!() };
        let identity = browsers.create();
        let (user, cookie) = (identity.user(), browsers.cookie(&identity, false));
        let pair = cookie.to_str().unwrap().split(';').next().unwrap().parse().unwrap();
        let headers = HeaderMap::from_iter([(header::COOKIE, pair)]);
        assert_eq!(browsers.current(&headers, false), Some(user), "{clock_first}");
        seconds.fetch_add(181 * 24 * 3600, Ordering::SeqCst);
        assert_eq!(browsers.current(&headers, false), None, "{clock_first}");
    }
}
