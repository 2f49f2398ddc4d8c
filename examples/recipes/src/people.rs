//! Represents the application's own tables: its users, and the accounts at other sites with which they sign in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A user's primary key.
pub type Id = u64;

/// A user's identity at a provider: the provider's name, and its identifier, which it never gives to another user.
///
/// Do not use an email address. Many providers accept any address in a profile, so an application that looks up users
/// by address gives accounts away.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// The provider's name in this application.
    pub provider: String,
    /// The provider's own identifier of the user.
    pub subject: String,
}

/// The tables. In a database each method is one statement or one transaction.
#[derive(Clone, Debug, Default)]
pub struct People(Arc<Mutex<Tables>>);

#[derive(Debug, Default)]
struct Tables {
    /// A primary key is never used twice.
    last: Id,
    users: BTreeSet<Id>,
    /// Unique by identity.
    identities: BTreeMap<Identity, Id>,
}

impl People {
    /// Creates a user.
    pub fn create(&self) -> Id {
        self.tables().create()
    }

    /// Returns the user with this identity, or creates one. Two concurrent logins create one user.
    pub fn find_or_create(&self, identity: Identity) -> Id {
        let mut tables = self.tables();
        if let Some(id) = tables.identities.get(&identity) {
            return *id;
        }
        let id = tables.create();
        tables.identities.insert(identity, id);
        id
    }

    /// Gives an identity to an existing user. `false`: it is another user's, or the user has another one at this
    /// provider.
    pub fn link(&self, id: Id, identity: Identity) -> bool {
        let mut tables = self.tables();
        let has_another = |(found, owner): (&Identity, &Id)| {
            *owner == id && found.provider == identity.provider && *found != identity
        };
        if tables.identities.iter().any(has_another) {
            return false;
        }
        *tables.identities.entry(identity).or_insert(id) == id
    }

    /// Removes a user's identity at one provider. `false`: it is the last one, and the user could never sign in again.
    pub fn unlink(&self, id: Id, provider: &str) -> bool {
        let mut tables = self.tables();
        if !tables.has_others(id, provider) {
            return false;
        }
        tables.identities.retain(|identity, owner| *owner != id || identity.provider != provider);
        true
    }

    /// Whether the user could still sign in without this provider.
    pub fn has_others(&self, id: Id, provider: &str) -> bool {
        self.tables().has_others(id, provider)
    }

    /// All identities of a user.
    pub fn identities(&self, id: Id) -> Vec<Identity> {
        let tables = self.tables();
        tables.identities.iter().filter(|(_, owner)| **owner == id).map(|(identity, _)| identity.clone()).collect()
    }

    /// Whether the user exists.
    pub fn exists(&self, id: Id) -> bool {
        self.tables().users.contains(&id)
    }

    /// Deletes a user. Delete their tokens with `OAuth::accounts` and `OAuth::disconnect`.
    pub fn delete(&self, id: Id) {
        let mut tables = self.tables();
        tables.users.remove(&id);
        tables.identities.retain(|_, owner| *owner != id);
    }

    /// The number of users.
    pub fn count(&self) -> usize {
        self.tables().users.len()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn create(&mut self) -> Id {
        self.last += 1;
        self.users.insert(self.last);
        self.last
    }

    fn has_others(&self, id: Id, provider: &str) -> bool {
        self.identities.iter().any(|(identity, owner)| *owner == id && identity.provider != provider)
    }
}
