use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;

use super::*;

/// A service that counts its calls, and fails on demand.
#[derive(Default)]
struct Service {
    calls: AtomicUsize,
    fault: Mutex<Fault>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Fault {
    #[default]
    None,
    Down,
    Hangs,
    Denied,
    Lost,
    /// Returns another key than was wrapped.
    Mixed,
}

impl Service {
    fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    fn calls(&self) -> usize {
        self.calls.swap(0, Ordering::SeqCst)
    }
}

#[async_trait]
impl KeyProvider for Service {
    fn name(&self) -> &str {
        "test"
    }

    async fn wrap(&self, key: &SealingKey) -> Result<Vec<u8>, KeyProviderError> {
        let fault = *self.fault.lock().unwrap();
        if fault == Fault::Hangs {
            std::future::pending::<()>().await;
        }
        // No encryption: these tests are about what happens around it.
        Ok(key.encode().as_bytes().iter().rev().copied().collect())
    }

    async fn unwrap(&self, wrapped: &[u8]) -> Result<SealingKey, KeyProviderError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let fault = *self.fault.lock().unwrap();
        match fault {
            Fault::Down => return Err(KeyProviderError::unreachable("connection refused")),
            Fault::Denied => return Err(KeyProviderError::access_denied("status 403")),
            Fault::Lost => return Err(KeyProviderError::key_unknown("status 404")),
            Fault::Mixed => return Ok(SealingKey::generate()),
            Fault::Hangs => std::future::pending().await,
            Fault::None => {}
        }
        let text: String = wrapped.iter().rev().map(|byte| char::from(*byte)).collect();
        SealingKey::parse(&text).ok_or_else(|| KeyProviderError::damaged("it is not a key"))
    }
}

/// A loader, its service, and the text of a ring with so many keys.
async fn loader(keys: usize) -> (KeyLoader, Arc<Service>, Vec<SealingKey>, String) {
    let service = Arc::new(Service::default());
    let loader = KeyLoader::new(Arc::clone(&service));
    let keys: Vec<_> = (0..keys).map(|_| SealingKey::generate()).collect();
    let mut text = String::from("# keys\n\n");
    for key in &keys {
        text += &format!("{}\n", loader.wrap(key).await.unwrap());
    }
    (loader, service, keys, text)
}

#[tokio::test(start_paused = true)]
async fn a_wrapped_ring_opens_what_its_keys_sealed() {
    let (loader, service, keys, mut text) = loader(2).await;
    let plain = SealingKey::generate();
    text += &plain.encode();
    let ring = loader.load(&text).await.unwrap();
    assert_eq!((ring.primary_id(), service.calls()), (keys[0].id(), 2));
    for key in keys.into_iter().chain([plain]) {
        let sealed = KeyRing::new(key).seal("test", b"", b"x");
        assert_eq!(ring.open("test", b"", &sealed).unwrap().as_slice(), b"x");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_unwrapped_again_after_an_hour() {
    let (loader, service, _, text) = loader(2).await;
    loader.load(&text).await.unwrap();
    assert_eq!(service.calls(), 2);
    service.set(Fault::Down);
    tokio::time::advance(CACHED_FOR - Duration::from_secs(1)).await;
    loader.load(&text).await.unwrap();
    assert_eq!(service.calls(), 0, "the cache needs no service");
    tokio::time::advance(Duration::from_secs(1)).await;
    let error = loader.load(&text).await.unwrap_err();
    assert!(matches!(error, KeyLoadError::Provider { source: KeyProviderError::Unreachable { .. }, .. }), "{error:?}");
    assert!(loader.cache.lock().unwrap().is_empty(), "keys that are too old are removed from memory");
    service.set(Fault::None);
    loader.load(&text).await.unwrap();
    assert_eq!(service.calls(), 3, "an error is not cached");
}

#[tokio::test(start_paused = true)]
async fn the_cache_has_at_most_so_many_keys() {
    let (loader, service, _, text) = loader(5).await;
    let loader = loader.with_cache(3, CACHED_FOR);
    loader.load(&text).await.unwrap();
    assert_eq!((service.calls(), loader.cache.lock().unwrap().len()), (5, 3));
    let last: Vec<_> = text.lines().rev().take(3).collect();
    loader.load(&last.join("\n")).await.unwrap();
    assert_eq!(service.calls(), 0, "the oldest were removed");
    for disabled in
        [loader.with_cache(0, CACHED_FOR), KeyLoader::new(Arc::clone(&service)).with_cache(9, Duration::ZERO)]
    {
        for _ in 0..2 {
            disabled.load(&text).await.unwrap();
            assert_eq!(service.calls(), 5, "without a cache");
        }
        assert!(disabled.cache.lock().unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_hangs_is_unreachable_in_time() {
    let (loader, service, keys, text) = loader(1).await;
    service.set(Fault::Hangs);
    let start = Instant::now();
    let unwrapped = loader.load(&text).await.unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 10);
    let wrapped = loader.wrap(&keys[0]).await.unwrap_err();
    for error in [unwrapped, wrapped] {
        assert!(
            matches!(&error, KeyLoadError::Provider { source, .. } if source.is_retryable()),
            "{error:?} is retryable"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn each_failure_names_cause_and_fix_and_no_key() {
    let (loader, service, keys, text) = loader(2).await;
    let id = keys[0].id();
    for (fault, part) in [
        (Fault::Down, "does not respond; check its address"),
        (Fault::Denied, "denies access; correct the credentials"),
        (Fault::Lost, "does not have the key that wrapped this one"),
    ] {
        service.set(fault);
        let error = loader.load(&text).await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(error.to_string(), format!("test cannot be used for key {id}"));
        assert!(cause.contains(part), "{cause}");
        let shown = format!("{error:?} {loader:?}");
        assert!(keys.iter().all(|key| !shown.contains(key.encode().as_str())), "{shown}");
    }
    service.set(Fault::Mixed);
    let error = loader.load(&text).await.unwrap_err();
    assert!(matches!(&error, KeyLoadError::DifferentKey { line: 3, key_id } if *key_id == id), "{error:?}");
    service.set(Fault::None);

    let other = text.replace("wrapped:test:", "wrapped:vault:");
    let error = loader.load(&other).await.unwrap_err().to_string();
    assert!(error.contains("vault wrapped, but test is used"), "{error}");
    let damaged = text.replacen(&text.lines().nth(2).unwrap()[30..], "AAAA", 1);
    let error = loader.load(&damaged).await.unwrap_err();
    assert!(matches!(error, KeyLoadError::Provider { source: KeyProviderError::Damaged { .. }, .. }), "{error:?}");
    let error = loader.load("# none\n").await.unwrap_err();
    assert!(matches!(error, KeyLoadError::Ring(KeyRingError::Empty)), "{error:?}");
}

#[tokio::test]
async fn a_provider_with_an_invalid_name_wraps_nothing() {
    struct Unnamed(&'static str);

    #[async_trait]
    impl KeyProvider for Unnamed {
        fn name(&self) -> &str {
            self.0
        }

        async fn wrap(&self, _: &SealingKey) -> Result<Vec<u8>, KeyProviderError> {
            Ok(vec![1])
        }

        async fn unwrap(&self, _: &[u8]) -> Result<SealingKey, KeyProviderError> {
            Err(KeyProviderError::damaged("nothing was wrapped"))
        }
    }

    for name in ["", "a b", "a:b", "a\nb"] {
        let error = KeyLoader::new(Unnamed(name)).wrap(&SealingKey::generate()).await.unwrap_err();
        assert!(matches!(error, KeyLoadError::Provider { .. }), "{error:?}");
    }
    assert!(KeyLoader::new(Unnamed("plain-1.0_x")).wrap(&SealingKey::generate()).await.is_ok());
}
