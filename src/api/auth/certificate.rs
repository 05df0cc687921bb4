//! Client certificates: whom they name, and what those may do.

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::model::{Grant, Timestamp};

/// What holders of certificates with a subject may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRule {
    /// The common name, or an alternative name (DNS, URI or e-mail); `*` for any certificate of the CA.
    pub subject: String,
    /// What they may do.
    pub grant: Grant,
}

/// Whom a certificate names. The handshake has proved it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateNames {
    /// Common name first, then alternative names.
    pub names: Vec<String>,
    /// When it ends.
    pub ends: Timestamp,
}

impl CertificateNames {
    /// The names of a certificate; `None` when it has none that can be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let common = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok().map(str::to_owned));
        let mut names: Vec<String> = common.collect();
        if let Ok(Some(alternative)) = parsed.subject_alternative_name() {
            names.extend(alternative.value.general_names.iter().filter_map(|name| match name {
                GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
                    Some((*name).to_owned())
                }
                _ => None,
            }));
        }
        // It ends up in the log and in tasks.
        names.retain(|name| name.len() <= 128 && name.chars().all(|c| matches!(c, '!'..='~')));
        let ends = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
        (!names.is_empty()).then(|| Self { names, ends: Timestamp(ends.saturating_mul(1_000_000)) })
    }

    /// The name that is known, and what it may do; the first rule that fits counts.
    pub fn granted<'a>(&self, rules: &'a [CertificateRule]) -> Option<(&str, &'a Grant)> {
        rules.iter().find_map(|rule| {
            let any = rule.subject == "*";
            let name = self.names.iter().find(|name| any || **name == rule.subject)?;
            Some((name.as_str(), &rule.grant))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_known_by_its_common_name_or_an_alternative_one() {
        let mut params = rcgen::CertificateParams::new(vec!["scaler.lineshaft.svc".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "scaler");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let names = CertificateNames::of(certificate.der()).unwrap();
        assert_eq!(names.names, ["scaler", "scaler.lineshaft.svc"]);
        assert!(names.ends > Timestamp(1_000_000));
        let rule = |subject: &str, role: &str| CertificateRule {
            subject: subject.to_owned(),
            grant: Grant::parse(role, &["*".to_owned()]).unwrap(),
        };
        let rules = [rule("other", "admin"), rule("scaler.lineshaft.svc", "viewer"), rule("*", "operator")];
        assert_eq!(names.granted(&rules).unwrap(), ("scaler.lineshaft.svc", &rules[1].grant));
        assert_eq!(names.granted(&rules[2..]).unwrap(), ("scaler", &rules[2].grant));
        assert_eq!(names.granted(&rules[..1]), None);
        assert_eq!(CertificateNames::of(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
