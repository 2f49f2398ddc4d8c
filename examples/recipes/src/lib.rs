//! One module for each way an application can have users. Each builds a whole router, and `tests/recipes.rs` drives it
//! like a browser, against a provider of its own.
//!
//! | what you have | recipe |
//! | --- | --- |
//! | visitors, and no accounts | [`anonymous`] |
//! | users who sign in as they always did, and connect accounts elsewhere | [`association`] |
//! | users who sign in *by* an account elsewhere | [`create_or_login`] |
//! | the same, who link and unlink more accounts | [`linking`] |
//! | several providers for each user, and several accounts at each | [`several`] |
//! | one token for the whole application, as a bot has | [`bot`] |
//! | tenants, each on a host of its own | [`tenants`] |
//! | `axum-login` | [`with_axum_login`] |
//! | tower-sessions, and nothing else to keep tokens in | [`sessions_alone`] |
//!
//! [`people`] and [`sessions`] stand for what an application has already: a table of users, and a session that says who
//! is signed in. What is taken as `own_pages` stands for the rest of it, its own sign-in included.

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
        openid: "openid.md";
        operating: "operating.md";
        providers: "guide/providers.md";
        setup: "guide/setup.md";
        storage: "guide/storage.md";
        testing: "testing.md";
        third_party_storages: "third-party-storages.md";
        users: "guide/users.md";
    }
}
