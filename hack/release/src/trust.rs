//! The certificate authorities that programs in an image trust.
//!
//! They come from Mozilla's list, by a crate whose version `Cargo.lock` holds,
//! so that every machine gives images the same ones. The API server is trusted
//! by its own CA, which Kubernetes mounts; these are for everything else that
//! an administrator may point the programs at.

use pem::{EncodeConfig, LineEnding, Pem};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

/// Where Rust's TLS looks first on Linux.
pub const PATH: &str = "etc/ssl/certs/ca-certificates.crt";
/// The crate they come from.
pub const CRATE: &str = "webpki-root-certs";

/// The certificates, in PEM.
#[must_use]
pub fn certificates() -> String {
    let all: Vec<Pem> = TLS_SERVER_ROOT_CERTS
        .iter()
        .map(|certificate| Pem::new("CERTIFICATE", certificate.as_ref()))
        .collect();
    pem::encode_many_config(&all, EncodeConfig::new().set_line_ending(LineEnding::LF))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_can_be_read_back() {
        let read = pem::parse_many(certificates()).unwrap();
        assert!(read.len() > 50, "{} certificates", read.len());
        for (read, original) in read.iter().zip(TLS_SERVER_ROOT_CERTS) {
            assert_eq!(read.contents(), original.as_ref());
        }
    }
}
