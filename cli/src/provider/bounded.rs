use std::collections::HashMap;
use std::hash::Hash;

use super::Now;

/// A map whose entries expire and which never holds more than `capacity` of them; when full, the
/// entry closest to its expiry makes room.
pub(super) struct Bounded<K, V> {
    capacity: usize,
    entries: HashMap<K, Entry<V>>,
}

struct Entry<V> {
    value: V,
    expires: Now,
}

impl<K: Clone + Eq + Hash, V> Bounded<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, entries: HashMap::new() }
    }

    /// Stores `value` until `expires`, in place of what `key` held.
    pub(super) fn insert(&mut self, key: K, value: V, expires: Now, now: Now) {
        self.entries.retain(|_, entry| entry.expires > now);
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&key) {
            self.evict_one();
        }
        self.entries.insert(key, Entry { value, expires });
    }

    pub(super) fn live<Q>(&self, key: &Q, now: Now) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let entry = self.entries.get(key)?;
        (entry.expires > now).then_some(&entry.value)
    }

    pub(super) fn remove<Q>(&mut self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.entries.remove(key);
    }

    fn evict_one(&mut self) {
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.expires);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn at(seconds: u64) -> Now {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_entry_lives_until_its_expiry() {
        let mut map = Bounded::new(2);
        map.insert(1, "one", at(10), at(0));
        assert_eq!(map.live(&1, at(9)), Some(&"one"));
        assert_eq!(map.live(&1, at(10)), None);
    }

    #[test]
    fn expired_entries_are_dropped_though_there_is_room() {
        let mut map = Bounded::new(9);
        map.insert(1, (), at(10), at(0));
        map.insert(2, (), at(5), at(0));
        map.insert(3, (), at(20), at(6));
        assert!(map.live(&1, at(6)).is_some());
        assert_eq!(map.entries.len(), 2);
    }

    #[test]
    fn never_grows_past_its_capacity() {
        let mut map = Bounded::new(3);
        for key in 0..100 {
            map.insert(key, (), at(1000 + key), at(0));
            assert!(map.entries.len() <= 3);
        }
        assert!(map.live(&99, at(0)).is_some());
        assert!(map.live(&96, at(0)).is_none());
    }

    #[test]
    fn replacing_evicts_nothing() {
        let mut map = Bounded::new(2);
        map.insert(1, (), at(10), at(0));
        map.insert(2, (), at(20), at(0));
        map.insert(2, (), at(30), at(0));
        assert!(map.live(&1, at(0)).is_some());
    }
}
