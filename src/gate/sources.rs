//! From the service file to an [`Identifier`]: secrets are read here, once, and kept nowhere else.

use std::path::PathBuf;

use super::made_pepper;
use crate::config::{
    Config, DEFAULT_PEPPER_ENV, IdentifyTable as Way, PepperConfig, Secret, SecretSource,
};
use crate::error::Error;
use crate::identity::{
    ClaimNames, CredentialSource, Identifier, KeyForm, Pepper, Peppers, Permissions, Proxies,
};

/// What ends the help about a secret that only requests need.
pub(super) const WORK_ONLY: &str =
    "; a program without requests needs none: `GateBuilder::work_only`";

/// What the host has handed in that identification depends on.
#[derive(Clone, Copy)]
pub(super) struct ByHost {
    /// A store.
    pub(super) store: bool,
    /// Its own identification of callers.
    pub(super) identify: bool,
}

/// What a gate identifies callers by.
pub(super) struct Sources {
    pub(super) identifier: Identifier,
    /// The path of the pepper, if one was made.
    pub(super) made_pepper: Option<PathBuf>,
    /// API keys are off for lack of a pepper: see [`identifier`].
    pub(super) keys_are_off: bool,
}

/// What an API key may do that was made without permissions.
pub(super) fn unlisted(config: &Config) -> Permissions {
    config.identify.iter().fold(Permissions::default(), |all, way| match way {
        Way::ApiKey { permissions, .. } => all.and(&permissions.join(" ")),
        _ => all,
    })
}

/// Builds the identifier that the service file describes. `unlisted`: what keys may do that were
/// made without permissions.
///
/// Where the file names no way, API keys are one by default. A host that identifies callers itself
/// may have none, so they are off there if they have no pepper; without them it is an error.
pub(super) fn identifier(
    config: &Config,
    unlisted: Permissions,
    by_host: ByHost,
) -> Result<Sources, Error> {
    let env = |name: &str| std::env::var(name).ok();
    let wrong = |message: String| Error::Config(message);
    let (mut peppers, mut made_pepper, mut keys_are_off) = (Vec::new(), None, false);
    let (mut sources, mut key_form) = (Vec::new(), None);
    for way in &config.identify {
        match way {
            Way::ApiKey { headers, peppers: own, prefix, permissions: _, is_default } => {
                let form = prefix.as_deref().map(KeyForm::with_prefix);
                key_form = key_form.or(form);
                for pepper in own {
                    let secret = match made_pepper::of(config, pepper, by_host.store)? {
                        Some(made) => {
                            made_pepper = made.made.or(made_pepper);
                            made.secret
                        }
                        None if *is_default && by_host.identify && is_unset(pepper) => {
                            keys_are_off = true;
                            continue;
                        }
                        None => resolve(pepper, &env)?,
                    };
                    let pepper = Pepper::new(&pepper.id, secret.expose().as_bytes());
                    peppers.push(pepper.map_err(wrong)?);
                }
                if !keys_are_off {
                    let headers = headers.iter().map(|it| it.as_str().into()).collect();
                    sources.push(CredentialSource::ApiKey { headers });
                }
            }
            Way::Header { tenant, user } => {
                sources.push(CredentialSource::Header {
                    tenant: tenant.as_str().into(),
                    user: user.as_deref().map(Into::into),
                });
            }
            Way::Network { networks, tenant } => {
                let networks = Proxies::new(networks.iter().map(ToString::to_string));
                let networks = networks.map_err(wrong)?;
                sources.push(CredentialSource::Network { networks, tenant: tenant.clone() });
            }
            Way::Claim { tenant, user, plan, permissions } => {
                let (tenant, user, plan) = (tenant.clone(), user.clone(), plan.clone());
                let permissions = permissions.clone();
                sources.push(CredentialSource::Claim(ClaimNames {
                    tenant,
                    user,
                    plan,
                    permissions,
                }));
            }
            Way::Jwt(jwt) => sources.push(jwt_source(jwt, &env)?),
        }
    }
    let proxies = config.proxy.trust.iter().map(ToString::to_string);
    let proxies = Proxies::new(proxies).map_err(wrong)?;
    let peppers = Peppers::new(peppers).map_err(wrong)?;
    let identifier =
        Identifier::new(sources, peppers, proxies).map_err(|e| wrong(e.to_string()))?;
    let identifier = identifier.with_key_form(key_form.unwrap_or_default().unlisted(unlisted));
    Ok(Sources { identifier, made_pepper, keys_are_off })
}

/// Whether the variable of a pepper is not there.
fn is_unset(pepper: &PepperConfig) -> bool {
    matches!(&pepper.secret.source, SecretSource::Env(name) if std::env::var_os(name).is_none())
}

/// The secret of a pepper that is configured.
fn resolve(pepper: &PepperConfig, env: &dyn Fn(&str) -> Option<String>) -> Result<Secret, Error> {
    pepper.secret.resolve(env).map_err(|mut error| {
        if pepper.is_default {
            error.help = format!(
                "export {DEFAULT_PEPPER_ENV}=$(openssl rand -hex 32), the same secret at every \
                 start; beside a store that has keys, the one that they were made with. Where the \
                 program names its callers itself there are no API keys: write `identify = []` at \
                 the top of the service file"
            );
        }
        error.help += WORK_ONLY;
        Error::Config(error.to_string())
    })
}

#[cfg(feature = "jwt")]
fn jwt_source(
    jwt: &crate::config::JwtConfig,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<CredentialSource, Error> {
    use crate::config::JwtKeys;
    use crate::identity::jwt::{Jwks, TokenRules, Verifier};

    let wrong = |message: String| Error::Config(format!("identify.jwt: {message}"));
    let claims = TokenRules {
        issuer: jwt.issuer.clone(),
        audience: jwt.audience.clone(),
        tenant: jwt.tenant.clone(),
        user: jwt.user.clone(),
        plan: jwt.plan.clone(),
        permissions: jwt.permissions.clone(),
    };
    let verifier = match &jwt.keys {
        JwtKeys::Jwks(place) => {
            let jwks = Jwks::new(place).map_err(|e| wrong(e.to_string()))?;
            Verifier::jwks(claims, std::sync::Arc::new(jwks))
        }
        JwtKeys::Secret(secret) => {
            let secret = secret.resolve(env).map_err(|mut error| {
                error.help += WORK_ONLY;
                wrong(error.to_string())
            })?;
            Verifier::hs256(claims, secret.expose().as_bytes()).map_err(wrong)?
        }
    };
    Ok(CredentialSource::Jwt(verifier))
}

#[cfg(not(feature = "jwt"))]
fn jwt_source(
    _: &crate::config::JwtConfig,
    _: &dyn Fn(&str) -> Option<String>,
) -> Result<CredentialSource, Error> {
    Err(Error::Config(
        "identify.jwt needs the feature `jwt` of tallygate, which is off in this program".into(),
    ))
}

/// Refuses a setting whose feature is not built in, rather than ignore it.
#[cfg(not(feature = "stripe"))]
pub(super) fn no_stripe(config: &Config) -> Result<(), Error> {
    if config.stripe.is_none() {
        return Ok(());
    }
    let message = "[stripe] needs the feature `stripe` of tallygate, which is off here";
    Err(Error::Config(message.into()))
}

/// The keys of token issuers. One that is away must not keep the service down: its tokens are
/// refused until its keys have been read.
#[cfg(feature = "jwt")]
pub(super) async fn fetch_keys(identifier: &Identifier, now: crate::clock::Now) {
    for jwks in identifier.verifiers().filter_map(|verifier| verifier.source()) {
        if let Err(error) = jwks.refresh(now).await {
            tracing::error!(%error, "no keys of a token issuer: its tokens are refused");
        }
    }
}
