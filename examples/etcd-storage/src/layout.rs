//! Which keys of etcd belong to a token, and which range of them a list reads.
//!
//! A token has three keys, which one transaction writes together:
//!
//! | key | value |
//! | --- | --- |
//! | `PREFIX/r/` tenant, user, provider, account | the record with its payload |
//! | `PREFIX/t/` tenant, user, provider, account | the hints, for lists in the order of the keys |
//! | `PREFIX/u/` user, tenant, provider, account | the hints, for lists of a user in all tenants |
//!
//! The payload is not in the keys that lists read, because a page of large payloads would exceed the limit of a response.

use std::ops::Range;

use oauth_dance_core::{Filter, StorageError, TokenKey};

/// The longest part of a key in bytes. It limits the size of a page, because lists return keys.
const MAX_PART: usize = 255;

/// The keys of one token.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) record: Vec<u8>,
    /// The two keys that lists read.
    pub(crate) entries: [Vec<u8>; 2],
}

/// The order of the parts in a key, which is the order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    ByTenant,
    ByUser,
}

impl Order {
    const fn tag(self) -> &'static str {
        match self {
            Self::ByTenant => "/t/",
            Self::ByUser => "/u/",
        }
    }

    /// Swaps tenant and user if they are stored the other way round. Twice is the identity.
    fn arrange<T>(self, [tenant, user, provider, account]: [T; 4]) -> [T; 4] {
        match self {
            Self::ByTenant => [tenant, user, provider, account],
            Self::ByUser => [user, tenant, provider, account],
        }
    }
}

/// The names of all keys below a prefix.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    prefix: String,
}

impl Layout {
    /// The prefix must not contain a slash. Otherwise the keys of one prefix could be keys of another.
    pub(crate) fn new(prefix: &str) -> Option<Self> {
        let is_valid = !prefix.is_empty() && !prefix.contains('/');
        is_valid.then(|| Self { prefix: prefix.to_owned() })
    }

    /// The keys of a token.
    pub(crate) fn keys_of(&self, key: &TokenKey) -> Result<Keys, StorageError> {
        for (part, text) in ["tenant", "user", "provider", "account"].into_iter().zip(key.parts()) {
            if text.len() > MAX_PART {
                return Err(StorageError::KeyTooLong { part, length: text.len(), limit: MAX_PART });
            }
        }
        let named = |tag: &str, order: Order| encode(&self.prefix, tag, &order.arrange(key.parts()));
        let entries = [Order::ByTenant, Order::ByUser].map(|order| named(order.tag(), order));
        Ok(Keys { record: named("/r/", Order::ByTenant), entries })
    }

    /// A key that is never written.
    pub(crate) fn probe(&self) -> Vec<u8> {
        encode(&self.prefix, "/probe", &[])
    }

    /// The token of a key that a list has read.
    pub(crate) fn token_of(&self, order: Order, key: &[u8]) -> Option<TokenKey> {
        let rest = key.strip_prefix(self.prefix.as_bytes())?.strip_prefix(order.tag().as_bytes())?;
        let [tenant, user, provider, account] = order.arrange(decode(rest)?);
        TokenKey::from_parts(tenant, user, provider, account).ok()
    }

    /// The keys that a list has to read: those that may match the filter and follow the cursor.
    pub(crate) fn range(&self, filter: &Filter, after: Option<&TokenKey>) -> (Order, Range<Vec<u8>>) {
        let is_of_user = filter.user.is_some() && filter.tenant.is_none();
        let order = if is_of_user { Order::ByUser } else { Order::ByTenant };
        let wanted = [&filter.tenant, &filter.user, &filter.provider, &None];
        // A range has one prefix: the parts up to the first one that the filter leaves open.
        let fixed: Vec<_> = order.arrange(wanted).into_iter().map_while(|part| part.as_deref()).collect();
        let all = encode(&self.prefix, order.tag(), &fixed);
        let end = end_of(&all);
        let start = match (order, after) {
            (_, None) => all,
            (Order::ByTenant, Some(after)) => all.max(self.next(order, &after.parts())),
            (Order::ByUser, Some(after)) => {
                all.max(self.next_of_user(fixed.first().copied().unwrap_or_default(), after))
            }
        };
        (order, start..end)
    }

    /// The first possible key after this one.
    fn next(&self, order: Order, parts: &[&str; 4]) -> Vec<u8> {
        let mut next = encode(&self.prefix, order.tag(), &order.arrange(*parts));
        next.push(0);
        next
    }

    /// The first possible key of `user` whose token follows `after`, which may be a token of another user: a cursor is
    /// valid for any filter. Tokens are ordered by their tenant first.
    fn next_of_user(&self, user: &str, after: &TokenKey) -> Vec<u8> {
        let [tenant, ..] = after.parts();
        let of_tenant = encode(&self.prefix, Order::ByUser.tag(), &[user, tenant]);
        match after.user().cmp(user) {
            std::cmp::Ordering::Less => of_tenant,
            std::cmp::Ordering::Equal => self.next(Order::ByUser, &after.parts()),
            std::cmp::Ordering::Greater => end_of(&of_tenant),
        }
    }
}

/// Encodes parts so that the bytes have the order of the parts, and different parts never have the same bytes: each part
/// ends with the bytes 0 1, and a byte 0 inside it becomes 0 255.
fn encode(prefix: &str, tag: &str, parts: &[&str]) -> Vec<u8> {
    let mut bytes = [prefix.as_bytes(), tag.as_bytes()].concat();
    for part in parts {
        for &byte in part.as_bytes() {
            bytes.push(byte);
            if byte == 0 {
                bytes.push(255);
            }
        }
        bytes.extend([0, 1]);
    }
    bytes
}

/// The four parts of an encoded key.
fn decode(mut bytes: &[u8]) -> Option<[String; 4]> {
    let mut parts = [const { Vec::new() }; 4];
    for part in &mut parts {
        loop {
            match bytes {
                [0, 1, rest @ ..] => {
                    bytes = rest;
                    break;
                }
                [0, 255, rest @ ..] => {
                    part.push(0);
                    bytes = rest;
                }
                [0, ..] | [] => return None,
                [byte, rest @ ..] => {
                    part.push(*byte);
                    bytes = rest;
                }
            }
        }
    }
    let [tenant, user, provider, account] = parts.map(String::from_utf8);
    bytes.is_empty().then_some([tenant.ok()?, user.ok()?, provider.ok()?, account.ok()?])
}

/// The end of the range of all keys with this prefix, whose last byte is a slash or a 1.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: [&str; 4]) -> TokenKey {
        let [tenant, user, provider, account] = parts;
        TokenKey::from_parts(tenant, user, provider, account).unwrap()
    }

    #[test]
    fn keys_have_the_order_of_their_tokens() {
        let layout = Layout::new("p").unwrap();
        let texts = ["a", "a\0", "a\0\u{1}", "a\u{1}", "ab", "b", "ÿ"];
        let mut keys = Vec::new();
        for tenant in ["", "a", "a\0"] {
            for user in texts {
                keys.extend(texts.map(|provider| key([tenant, user, provider, ""])));
                keys.extend(texts.map(|account| key([tenant, user, "a", account])));
            }
        }
        keys.sort();
        keys.dedup();
        let names: Vec<_> = keys.iter().map(|key| layout.keys_of(key).unwrap()).collect();
        assert!(names.is_sorted_by(|one, other| one.record < other.record && one.entries[0] < other.entries[0]));
        for (key, names) in keys.iter().zip(&names) {
            assert_eq!(layout.token_of(Order::ByTenant, &names.entries[0]).as_ref(), Some(key));
            assert_eq!(layout.token_of(Order::ByUser, &names.entries[1]).as_ref(), Some(key));
        }
    }

    #[test]
    fn a_cursor_of_any_token_continues_a_list_of_a_user() {
        let layout = Layout::new("p").unwrap();
        let texts = ["a", "b", "c"];
        let all: Vec<_> = texts.iter().flat_map(|tenant| texts.map(|user| key([tenant, user, "x", ""]))).collect();
        for after in &all {
            let (order, range) = layout.range(&Filter::everything().user("b"), Some(after));
            let names = |key: &TokenKey| layout.keys_of(key).unwrap().entries[1].clone();
            let listed: Vec<_> = all.iter().filter(|key| range.contains(&names(key))).collect();
            let wanted: Vec<_> = all.iter().filter(|key| key.user() == "b" && *key > after).collect();
            assert_eq!((order, listed), (Order::ByUser, wanted), "after {after:?}");
        }
    }
}
