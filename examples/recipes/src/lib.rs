//! One module for each way an application can have users. Each builds a complete router, and `tests/recipes.rs` drives
//! it like a browser, against a test provider.
//!
//! | what you have | recipe |
//! | --- | --- |
//! | visitors without accounts | [`anonymous`] |
//! | users who sign in as usual, and connect accounts at other sites | [`association`] |
//! | users who sign in *with* an account at another site | [`create_or_login`] |
//! | the same users, who also link and unlink more accounts | [`linking`] |
//! | several providers for each user, and several accounts at each | [`several`] |
//! | one token for the whole application, for a bot | [`bot`] |
//! | tenants, each on its own host | [`tenants`] |
//! | `axum-login` | [`with_axum_login`] |
//! | tower-sessions, and no other storage for tokens | [`sessions_alone`] |
//!
//! [`people`] and [`sessions`] represent what an application already has: a table of users, and a session with the
//! signed-in user. The argument `own_pages` represents the rest of it, including its own sign-in.

pub mod anonymous;
pub mod association;
pub mod bot;
pub mod create_or_login;
pub mod linking;
pub mod people;
pub mod sessions;
pub mod sessions_alone;
pub mod several;
pub mod tenants;
pub mod with_axum_login;

/// The code of the pages in `docs/`, compiled and run.
#[cfg(doctest)]
mod pages {
    macro_rules! pages {
        ($($name:ident: $path:literal;)*) => {
            $(#[doc = include_str!(concat!("../../../docs/", $path))]
            mod $name {})*
        };
    }

    pages! {
        calls: "guide/calls.md";
        coming_from_flask_dance: "coming-from-flask-dance.md";
        login: "guide/login.md";
        logout: "guide/logout.md";
        mcp: "guide/mcp.md";
        openid: "openid.md";
        operating: "operating.md";
        native: "guide/native.md";
        own_storage: "own-storage.md";
        providers: "guide/providers.md";
        setup: "guide/setup.md";
        storage: "guide/storage.md";
        testing: "testing.md";
        third_party_storages: "third-party-storages.md";
        users: "guide/users.md";
        without_a_framework: "guide/without-a-framework.md";
    }
}
