//! The paths of the operator's routes.

use crate::report::percent_decoded;

/// A path that something is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Billing,
    Health,
    Operator,
    Operators,
    OperatorsHistory,
    Token(String),
    Plans,
    Top,
    Tenants,
    Tenant(String),
    Usage(String),
    UsageHistory(String),
    Peek(String),
    History(String),
    Refusals,
    RefusalsOf(String),
    Grants(String),
    Grant(String, String),
    Overrides(String),
    Override(String, String),
    Resets(String),
    Keys(String),
    Key(String, String),
    Rotation(String, String),
}

impl Route {
    /// The route of a path. Its parts are decoded one by one, so that an id may hold a slash.
    pub(super) fn of(path: &str) -> Option<Self> {
        let parts = path.trim_start_matches('/').split('/').map(|part| percent_decoded(part, '+'));
        let parts = parts.collect::<Option<Vec<String>>>()?;
        let own = String::clone;
        let words: Vec<&str> = parts.iter().map(String::as_str).collect();
        let first = parts.get(1).filter(|id| !id.is_empty());
        let item = parts.get(3).filter(|id| !id.is_empty());
        Some(match (words.as_slice(), first, item) {
            (["billing"], ..) => Self::Billing,
            (["health"], ..) => Self::Health,
            (["operator"], ..) => Self::Operator,
            (["operators"], ..) => Self::Operators,
            (["operators", "history"], ..) => Self::OperatorsHistory,
            (["operators", _], Some(id), _) => Self::Token(own(id)),
            (["plans"], ..) => Self::Plans,
            (["top"], ..) => Self::Top,
            (["refusals"], ..) => Self::Refusals,
            (["tenants"], ..) => Self::Tenants,
            (["tenants", _], Some(id), _) => Self::Tenant(own(id)),
            (["tenants", _, "usage"], Some(id), _) => Self::Usage(own(id)),
            (["tenants", _, "usage", "history"], Some(id), _) => Self::UsageHistory(own(id)),
            (["tenants", _, "peek"], Some(id), _) => Self::Peek(own(id)),
            (["tenants", _, "history"], Some(id), _) => Self::History(own(id)),
            (["tenants", _, "refusals"], Some(id), _) => Self::RefusalsOf(own(id)),
            (["tenants", _, "grants"], Some(id), _) => Self::Grants(own(id)),
            (["tenants", _, "grants", _], Some(id), Some(item)) => Self::Grant(own(id), own(item)),
            (["tenants", _, "overrides"], Some(id), _) => Self::Overrides(own(id)),
            (["tenants", _, "overrides", _], Some(id), Some(item)) => {
                Self::Override(own(id), own(item))
            }
            (["tenants", _, "resets"], Some(id), _) => Self::Resets(own(id)),
            (["tenants", _, "keys"], Some(id), _) => Self::Keys(own(id)),
            (["tenants", _, "keys", _], Some(id), Some(item)) => Self::Key(own(id), own(item)),
            (["tenants", _, "keys", _, "rotation"], Some(id), Some(item)) => {
                Self::Rotation(own(id), own(item))
            }
            _ => return None,
        })
    }

    /// The methods that it answers, as in `Allow`.
    pub(super) fn methods(&self) -> &'static str {
        match self {
            Self::Billing
            | Self::Health
            | Self::Operator
            | Self::Operators
            | Self::OperatorsHistory
            | Self::Plans
            | Self::Top
            | Self::Usage(_)
            | Self::UsageHistory(_)
            | Self::Peek(_)
            | Self::History(_)
            | Self::Refusals
            | Self::RefusalsOf(_) => "GET",
            Self::Tenants | Self::Keys(_) => "GET, POST",
            Self::Tenant(_) => "GET, PATCH, DELETE",
            Self::Grants(_) | Self::Resets(_) | Self::Rotation(..) => "POST",
            Self::Overrides(_) => "POST, DELETE",
            Self::Key(..) => "PATCH, DELETE",
            Self::Grant(..) | Self::Override(..) | Self::Token(_) => "DELETE",
        }
    }
}
