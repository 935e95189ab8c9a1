//! The app's tables: organisations with their plans, users, sessions, notes. They are in memory
//! here, so that the example needs no server, and end with the process. A real app has them in a
//! database, with hashed passwords.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

/// Sessions that are kept: the oldest ends when another begins. More than a demo needs.
const SESSIONS: usize = 1000;
/// Notes of an organisation that are kept: the oldest goes when another comes.
const NOTES: usize = 100;
/// Notes that a stream may be behind before it misses some.
const BEHIND: usize = 16;

/// Who is signed in, as the tables say at that moment.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) organisation: String,
    pub(crate) plan: String,
}

/// All of the tables; a clone is another handle on the same.
#[derive(Clone)]
pub(crate) struct Tables(Arc<Mutex<Rows>>);

struct Rows {
    users: HashMap<&'static str, UserRow>,
    organisations: HashMap<&'static str, Organisation>,
    /// The cookie's value, and the user.
    sessions: VecDeque<(String, &'static str)>,
}

struct UserRow {
    password: &'static str,
    organisation: &'static str,
}

struct Organisation {
    plan: &'static str,
    notes: VecDeque<String>,
    news: broadcast::Sender<String>,
}

impl Tables {
    /// Three organisations. The password of all users is `demo`.
    pub(crate) fn demo() -> Self {
        let users = [("ada", "acme"), ("alan", "acme"), ("grace", "globex"), ("ian", "initech")];
        let user = |organisation| UserRow { password: "demo", organisation };
        let plans = [("acme", "free"), ("globex", "pro"), ("initech", "free")];
        let organisation = |plan| {
            let (news, _) = broadcast::channel(BEHIND);
            Organisation { plan, notes: VecDeque::new(), news }
        };
        Self(Arc::new(Mutex::new(Rows {
            users: users.into_iter().map(|(name, of)| (name, user(of))).collect(),
            organisations: plans.into_iter().map(|(id, on)| (id, organisation(on))).collect(),
            sessions: VecDeque::new(),
        })))
    }

    /// Begins a session under this random id, if the password is right.
    pub(crate) fn sign_in(&self, name: &str, password: &str, session: String) -> bool {
        let mut rows = self.rows();
        let Some((&name, user)) = rows.users.get_key_value(name) else { return false };
        if user.password != password {
            return false;
        }
        if rows.sessions.len() == SESSIONS {
            rows.sessions.pop_front();
        }
        rows.sessions.push_back((session, name));
        true
    }

    /// The user of a session.
    pub(crate) fn user(&self, session: &str) -> Option<User> {
        let rows = self.rows();
        let (_, name) = rows.sessions.iter().find(|(id, _)| id == session)?;
        let organisation = rows.users.get(name)?.organisation;
        let plan = rows.organisations.get(organisation)?.plan;
        let (name, organisation) = ((*name).to_owned(), organisation.to_owned());
        Some(User { name, organisation, plan: plan.to_owned() })
    }

    /// Puts an organisation on a plan.
    pub(crate) fn set_plan(&self, organisation: &str, plan: &'static str) {
        if let Some(organisation) = self.rows().organisations.get_mut(organisation) {
            organisation.plan = plan;
        }
    }

    /// Adds a note, and sends it to the streams of its organisation.
    pub(crate) fn add_note(&self, organisation: &str, note: String) {
        let mut rows = self.rows();
        let Some(organisation) = rows.organisations.get_mut(organisation) else { return };
        if organisation.notes.len() == NOTES {
            organisation.notes.pop_front();
        }
        organisation.notes.push_back(note.clone());
        let _ = organisation.news.send(note); // an error says that no stream is open
    }

    /// The notes of an organisation, oldest first.
    pub(crate) fn notes(&self, organisation: &str) -> Vec<String> {
        let rows = self.rows();
        let found = rows.organisations.get(organisation);
        found.map_or_else(Vec::new, |it| it.notes.iter().cloned().collect())
    }

    /// The notes that an organisation adds from now on.
    pub(crate) fn news(&self, organisation: &str) -> Option<broadcast::Receiver<String>> {
        self.rows().organisations.get(organisation).map(|it| it.news.subscribe())
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner) // each change is one step
    }
}
