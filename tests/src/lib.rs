//! Proof that a token storage keeps its promises: the conformance suite of `oauth-dance-core`, and, in the folder
//! `tests`, the end-to-end tests of the whole workspace against real parts.
