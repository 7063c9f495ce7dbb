//! What Azure lets be done with a credential. A key of the account may do everything; a shared access signature says in its field `sp`
//! what it may (<https://learn.microsoft.com/rest/api/storageservices/create-account-sas>); of an identity only the service knows.

use url::form_urlencoded;

use super::auth::{AzureCredential, connection_field};
use crate::vault::address::Secret;
use crate::vault::rights::{May, Rights};

impl AzureCredential {
    /// What it may do with packs and points.
    pub fn rights(&self) -> Rights {
        let (credential, may) = match self {
            Self::SharedKey(_) => ("account key", May::Maintain),
            Self::Sas(signature) => ("shared access signature", of_signature(signature.reveal())),
            // Packs and points lie in the first container.
            Self::SasPair { data, .. } => ("shared access signatures", of_signature(data.reveal())),
            Self::ConnectionString(text) => of_connection_string(text),
            Self::ClientSecret { .. } => ("application with a secret", May::Unknown),
            Self::ManagedIdentity { .. } => ("managed identity", May::Unknown),
            Self::WorkloadIdentity { .. } => ("workload identity", May::Unknown),
            Self::AzureCli => ("login of az", May::Unknown),
        };
        Rights { credential, may }
    }
}

fn of_connection_string(text: &Secret) -> (&'static str, May) {
    match (connection_field(text, "AccountKey"), connection_field(text, "SharedAccessSignature")) {
        (None, Some(signature)) => ("connection string with a signature", of_signature(signature)),
        _ => ("connection string with an account key", May::Maintain),
    }
}

/// `w` lets a blob be overwritten, `m` moved, `y` and `x` what is kept of deleted ones be deleted. One with a stored access policy may say nothing.
fn of_signature(signature: &str) -> May {
    let mut fields = form_urlencoded::parse(signature.trim_start_matches('?').as_bytes());
    let Some((_, letters)) = fields.find(|(name, _)| name == "sp") else { return May::Unknown };
    let has = |wanted: &[char]| letters.contains(wanted);
    match () {
        () if has(&['d', 'w', 'm', 'y', 'x']) => May::Maintain,
        () if signature_has_policy(signature) => May::Unknown,
        () if has(&['c']) => May::Write,
        () if has(&['r', 'l']) => May::Read,
        () => May::Unknown,
    }
}

/// A policy that the service keeps may add to what the signature says.
fn signature_has_policy(signature: &str) -> bool {
    form_urlencoded::parse(signature.trim_start_matches('?').as_bytes()).any(|(name, _)| name == "si")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_says_what_it_may_and_what_says_nothing_is_not_taken_for_harmless() {
        let cases = [
            ("sv=2025-11-05&sp=rcl&sig=geheim", May::Write),
            ("?sp=rl&sig=x", May::Read),
            ("sp=rcld&sig=x", May::Maintain),
            ("sp=rwl&sig=x", May::Maintain),
            ("sp=%72%64&sig=x", May::Maintain),
            ("sp=rcl&si=policy&sig=x", May::Unknown),
            ("si=policy&sig=x", May::Unknown),
            ("sp=&sig=x", May::Unknown),
            ("spr=https&ss=b&srt=co&sp=rcl", May::Write),
            ("", May::Unknown),
        ];
        for (signature, may) in cases {
            assert_eq!(AzureCredential::Sas(Secret::new(signature)).rights().may, may, "{signature}");
            let text = format!("AccountName=a;SharedAccessSignature={signature}");
            assert_eq!(AzureCredential::ConnectionString(Secret::new(text)).rights().may, may, "{signature}");
        }
        let pair = |data, control| {
            let [data, control] = [data, control].map(Secret::new);
            AzureCredential::SasPair { data, control }.rights().may
        };
        assert_eq!([pair("sp=rcl", "sp=rcld"), pair("sp=rcld", "sp=rl")], [May::Write, May::Maintain]);
        let key = AzureCredential::ConnectionString(Secret::new("AccountName=a;AccountKey=eA=="));
        assert_eq!(key.rights().may, May::Maintain);
        assert_eq!(AzureCredential::SharedKey(Secret::new("eA==")).rights().may, May::Maintain);
        assert_eq!(AzureCredential::AzureCli.rights().may, May::Unknown);
    }
}
