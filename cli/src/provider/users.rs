//! The demo users.

/// A demo user. All have the same [`PASSWORD`], which the login page shows.
#[derive(Debug, PartialEq)]
pub(super) struct User {
    pub(super) username: &'static str,
    pub(super) subject: &'static str,
    pub(super) name: &'static str,
    pub(super) email: &'static str,
}

pub(super) const PASSWORD: &str = "dance";

pub(super) static USERS: [User; 2] = [
    User { username: "alice", subject: "local-1001", name: "Alice Adams", email: "alice@example.com" },
    User { username: "bob", subject: "local-1002", name: "Bob Brown", email: "bob@example.com" },
];

impl User {
    pub(super) fn initial(&self) -> &'static str {
        self.name.get(..1).unwrap_or_default()
    }
}

/// Finds a user by name and password.
pub(super) fn authenticate(username: &str, password: &str) -> Option<&'static User> {
    if password != PASSWORD {
        return None;
    }
    USERS.iter().find(|user| user.username.eq_ignore_ascii_case(username.trim()))
}
