//! Client certificates: the names in them, and the grants that these names get.

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::model::{Grant, Timestamp};

/// Grants a role to holders of certificates with a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRule {
    /// The common name or an alternative name (DNS, URI or e-mail); `*` matches any certificate of the CA.
    pub subject: String,
    pub grant: Grant,
}

/// The names in a certificate that the TLS handshake verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateNames {
    /// The common name first, then the alternative names.
    pub names: Vec<String>,
    pub expires_at: Timestamp,
}

impl CertificateNames {
    /// `None` if the certificate contains no usable name.
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
        // The name is stored in tasks and written to the log.
        names.retain(|name| name.len() <= 128 && name.chars().all(|c| matches!(c, '!'..='~')));
        let expires_at = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
        (!names.is_empty()).then(|| Self { names, expires_at: Timestamp(expires_at.saturating_mul(1_000_000)) })
    }

    /// The name and the grant of the first rule that matches.
    pub fn granted<'a>(&self, rules: &'a [CertificateRule]) -> Option<(&str, &'a Grant)> {
        rules.iter().find_map(|rule| {
            let matches_any = rule.subject == "*";
            let name = self.names.iter().find(|name| matches_any || **name == rule.subject)?;
            Some((name.as_str(), &rule.grant))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_matches_the_common_name_or_an_alternative_name() {
        let mut params = rcgen::CertificateParams::new(vec!["scaler.lineshaft.svc".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "scaler");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let names = CertificateNames::of(certificate.der()).unwrap();
        assert_eq!(names.names, ["scaler", "scaler.lineshaft.svc"]);
        assert!(names.expires_at > Timestamp(1_000_000));
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
