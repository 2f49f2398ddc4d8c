use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// Makes aws-lc-rs the process's TLS provider where the application has chosen none: with several in the build,
/// rustls would panic rather than choose.
pub(crate) fn choose_provider() {
    if CryptoProvider::get_default().is_none() {
        // Whoever was faster has chosen.
        let _ = aws_lc_rs::default_provider().install_default();
    }
}
