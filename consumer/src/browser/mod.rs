//! Who a browser is to the application, and what it and the storage hold of it between two requests.

pub(crate) mod anonymous;
pub(crate) mod attempt;
pub(crate) mod cookies;
pub(crate) mod logout;
pub(crate) mod outcome;
pub(crate) mod spent;
pub(crate) mod user;
