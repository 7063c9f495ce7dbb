//! What opens vaults, by the names that the services' own tools use.

use holdfast_store::vault::address::{Credentials, Secret};
use holdfast_store::vault::azure::AzureCredential;

use crate::outcome::Failure;
use crate::settings::Environment;

/// Longest credential in a file.
const LEN_MAX: u64 = 64 << 10;

/// Variables that hold a credential itself. A child that has no use for them is started without.
pub const PLAIN_CREDENTIALS: [&str; 6] = [
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_CLIENT_SECRET",
    "HOLDFAST_AZURE_SAS_DATA",
    "HOLDFAST_AZURE_SAS_CONTROL",
];

/// Looks at the environment for what Azure's own tools take: `AZURE_STORAGE_CONNECTION_STRING`, `AZURE_STORAGE_KEY`,
/// `AZURE_STORAGE_SAS_TOKEN` (each also as `_FILE`), before them a signature for each container by our own
/// `HOLDFAST_AZURE_SAS_DATA` and `HOLDFAST_AZURE_SAS_CONTROL` (the same), then Entra by `AZURE_TENANT_ID`, `AZURE_CLIENT_ID` with
/// `AZURE_CLIENT_SECRET` or `AZURE_FEDERATED_TOKEN_FILE`, then `HOLDFAST_AZURE_AUTH=managed-identity`; whoever is logged in with `az` otherwise.
pub fn gather(env: &Environment) -> Result<Credentials, Failure> {
    let by_secret = match signature_pair(env)? {
        None => storage_secret(env)?,
        pair => pair,
    };
    let azure = match by_secret {
        Some(credential) => credential,
        None => entra(env)?,
    };
    Ok(Credentials { azure: Some(azure) })
}

fn signature_pair(env: &Environment) -> Result<Option<AzureCredential>, Failure> {
    match (secret(env, "HOLDFAST_AZURE_SAS_DATA")?, secret(env, "HOLDFAST_AZURE_SAS_CONTROL")?) {
        (None, None) => Ok(None),
        (Some(data), Some(control)) => Ok(Some(AzureCredential::SasPair { data, control })),
        _ => Err(Failure::usage("of HOLDFAST_AZURE_SAS_DATA and HOLDFAST_AZURE_SAS_CONTROL only one is set")
            .hint("set both, or AZURE_STORAGE_SAS_TOKEN for one signature of both containers")),
    }
}

fn storage_secret(env: &Environment) -> Result<Option<AzureCredential>, Failure> {
    type Kind = fn(Secret) -> AzureCredential;
    let kinds: [(&str, Kind); 3] = [
        ("AZURE_STORAGE_CONNECTION_STRING", AzureCredential::ConnectionString),
        ("AZURE_STORAGE_KEY", AzureCredential::SharedKey),
        ("AZURE_STORAGE_SAS_TOKEN", AzureCredential::Sas),
    ];
    for (name, credential) in kinds {
        if let Some(secret) = secret(env, name)? {
            return Ok(Some(credential(secret)));
        }
    }
    Ok(None)
}

fn entra(env: &Environment) -> Result<AzureCredential, Failure> {
    let (tenant, client) = (text(env, "AZURE_TENANT_ID")?, text(env, "AZURE_CLIENT_ID")?);
    if let (Some(tenant), Some(client)) = (&tenant, &client) {
        let (tenant, client) = (tenant.clone(), client.clone());
        if let Some(secret) = secret(env, "AZURE_CLIENT_SECRET")? {
            return Ok(AzureCredential::ClientSecret { tenant, client, secret });
        }
        if let Some(file) = env("AZURE_FEDERATED_TOKEN_FILE") {
            return Ok(AzureCredential::WorkloadIdentity { tenant, client, token_file: file.into() });
        }
    }
    match text(env, "HOLDFAST_AZURE_AUTH")?.as_deref() {
        Some("managed-identity") => Ok(AzureCredential::ManagedIdentity { client }),
        None | Some("cli") => Ok(AzureCredential::AzureCli),
        Some(other) => Err(Failure::usage(format!("HOLDFAST_AZURE_AUTH is {other:?}"))
            .hint("it may be managed-identity or cli")),
    }
}

fn secret(env: &Environment, name: &str) -> Result<Option<Secret>, Failure> {
    if let Some(plain) = text(env, name)? {
        return Ok(Some(Secret::new(plain)));
    }
    let Some(file) = env(&format!("{name}_FILE")) else { return Ok(None) };
    let path = std::path::PathBuf::from(file);
    let long = std::fs::metadata(&path).is_ok_and(|meta| meta.len() > LEN_MAX);
    if long {
        return Err(Failure::failed(format!("{} is too long for a credential", path.display())));
    }
    let read = std::fs::read_to_string(&path)
        .map_err(|error| Failure::io("read the credential in", &path, &error))?;
    Ok(Some(Secret::new(read.trim())))
}

fn text(env: &Environment, name: &str) -> Result<Option<String>, Failure> {
    env(name)
        .map(|value| value.into_string().map_err(|_| Failure::usage(format!("{name} is not UTF-8 text"))))
        .transpose()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::ffi::OsString;

    use super::*;

    fn kind(pairs: &[(&'static str, &'static str)]) -> String {
        let pairs = pairs.to_vec();
        let env =
            move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, v)| OsString::from(v));
        let credential = gather(&env).unwrap().azure.unwrap();
        format!("{credential:?}").split(['(', ' ', '{']).next().unwrap().to_owned()
    }

    #[test]
    fn credentials_are_found_by_the_names_of_the_services_tools() {
        assert_eq!(kind(&[]), "AzureCli");
        assert_eq!(kind(&[("AZURE_STORAGE_KEY", "a2V5")]), "SharedKey");
        assert_eq!(kind(&[("AZURE_STORAGE_SAS_TOKEN", "sv=x")]), "Sas");
        assert_eq!(
            kind(&[("AZURE_STORAGE_KEY", "a"), ("AZURE_STORAGE_CONNECTION_STRING", "b")]),
            "ConnectionString"
        );
        let pair = [("HOLDFAST_AZURE_SAS_DATA", "sv=x"), ("HOLDFAST_AZURE_SAS_CONTROL", "sv=y")];
        assert_eq!(kind(&[pair[0], ("AZURE_STORAGE_KEY", "a2V5"), pair[1]]), "SasPair");
        let half = |name: &str| (name == "HOLDFAST_AZURE_SAS_DATA").then(|| OsString::from("sv=x"));
        assert_eq!(gather(&half).unwrap_err().exit_code(), 2);
        let app = [("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c")];
        assert_eq!(kind(&[app[0], app[1], ("AZURE_CLIENT_SECRET", "s")]), "ClientSecret");
        assert_eq!(kind(&[app[0], app[1], ("AZURE_FEDERATED_TOKEN_FILE", "/t")]), "WorkloadIdentity");
        assert_eq!(kind(&[("HOLDFAST_AZURE_AUTH", "managed-identity")]), "ManagedIdentity");
    }

    #[test]
    fn a_credential_may_stand_in_a_file_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "c2VjcmV0\n").unwrap();
        let env = move |name: &str| (name == "AZURE_STORAGE_KEY_FILE").then(|| path.clone().into_os_string());
        let shown = format!("{:?}", gather(&env).unwrap());
        assert!(shown.contains("SharedKey") && !shown.contains("c2VjcmV0"), "{shown}");
    }
}
