//! Which user a browser is, and what its cookies and the storage retain about it between two requests.

pub(crate) mod anonymous;
pub(crate) mod attempt;
pub(crate) mod cookies;
pub(crate) mod logout;
pub(crate) mod outcome;
pub(crate) mod spent;
pub(crate) mod user;
