//! OAuth 2.0 for apps that others let in: signing in once, and keeping an access token fresh from then on.
//!
//! Katana requires it of publicly available apps that access others' data. A person signs in at Katana's page
//! and agrees; the app gets a code, and for it an **access token**, which is sent as a key is, and a
//! **refresh token**, which brings the next two. Together they are the **grant**, one document in a
//! [`DocumentStore`](crate::store::DocumentStore).
//!
//! 1. [`OAuthApp`] is the app: its client id, where its client secret is, and its server.
//! 2. [`OAuthApp::sign_in`] gives the URL for the person; what comes back is a code, by [`SignIn::answer`] at
//!    a web server, or by a [`LoopbackListener`] in a command-line tool. [`OAuthApp::exchange`] makes
//!    [`Tokens`] of it, and [`Tokens::save`] makes them the grant.
//! 3. A [`TokenKeeper`] publishes the access token to a live [`KeyHandle`](crate::handle::KeyHandle) and
//!    refreshes it ahead of its end, in as many processes and on as many machines as share the store.
//!    [`BearerLayer`](crate::client::BearerLayer) sends it like a key: when it is refused before its time,
//!    the request waits for a refresh and is repeated once. Its [events](KeeperSettings::on_event) say when a
//!    person is needed, and so do its lines for `tracing` with that feature.
//! 4. [`OAuthApp::grant_in`] looks at a grant without a keeper, such as before a start or in a monitor.
//!
//! # One refresh at a time
//! Each refresh token is good once. If an old one is used, the server takes it for stolen and revokes the
//! whole grant, the newest tokens included (RFC 9700, section 4.14.2; Katana documents it). So the first to
//! refresh writes a **lease** into the grant's own document, with compare-and-swap, and the others wait for
//! what comes of it. It sends the refresh token in the first two thirds of the lease or not at all.
//!
//! A lease ends for others when it has passed by every clock that can tell:
//!
//! - **A process that runs** counts from when it saw the lease first, on its own monotonic clock. Wall clocks
//!   do not matter.
//! - **A process that has just started**, such as a cron job, goes by the date in the lease. On the holder's
//!   machine that is the clock that counts from the machine's start (Linux) and the wall clock, both: a wall
//!   clock that was set cannot end a lease early. On another machine it is the wall clock and 30 min more.
//!   Clocks that differ by more than that can cost the grant, so keep the clocks of machines that share one
//!   by NTP.
//!
//! The new refresh token is persisted before its access token is looked at, and that before it is published.
//! A late answer is waited for until the end of the lease, and what has arrived by then is read. What a
//! process leaves that ends on the way:
//!
//! | it ends | the grant |
//! |---|---|
//! | before it has the lease | as it was |
//! | with the lease, before the server has the request | whole, and *in doubt*: no one can tell this case from the next |
//! | after the server has the request, before the tokens are persisted | lost with the tokens of the answer; *in doubt* until it is tried |
//! | after the tokens are persisted | whole: others publish them |
//!
//! A grant in doubt keeps its access token in force for as long as that lives: the old refresh token is tried
//! again only at the last moment, or when the access token is refused, because with a server that has used it
//! up this ends the grant for good. Meanwhile [`KeeperStatus::state`] says [`GrantState::InDoubt`], and
//! [`KeeperEvent::InDoubt`] is told, which is the time to ask a person to sign in again. More than that the
//! protocol does not allow. An answer that was lost on the way leaves the same doubt.
//!
//! # Which grant it is
//! Each sign-in has a random id. The first one in a place begins the lineage of that place, and a later
//! sign-in that is saved there goes on with it: keepers take its tokens and tell [`KeeperEvent::Replaced`].
//! The grant of another place, such as another account's, is never taken for it: a keeper that finds one
//! there says [`KeeperProblem::OtherGrant`], and a handle that has tokens of the one refuses those of the
//! other.
//!
//! An **older copy** that is put back, such as from a backup, has a refresh token that is used up. A running
//! keeper that has the newest writes it back at its next look ([`KeeperEvent::WrittenBack`]). Where no keeper
//! runs, or a process starts before that look and a refresh is due, the copy is used, and a person must sign
//! in again: do not restore grants.
//!
//! # What is refused, and what is not
//! Only the server's own `invalid_grant` refuses a grant ([`GrantState::Refused`]: a person must sign in
//! again). A server that cannot be reached, a 429, a 5xx, a proxy's page: the token stays in force while it
//! lives, and attempts back off.
//!
//! # What is documented
//! Katana: both endpoints, `scope=offline_access`, the audience, the form-encoded request with the client
//! secret in its body, and that refresh tokens rotate. Not documented: `state` and PKCE, which are sent all
//! the same (RFC 9700; PKCE [can be turned off](OAuthApp::without_pkce)), the lifetime and the format of
//! tokens.
//!
//! ```no_run
//! use std::time::Duration;
//! use keysheath::client::{BearerLayer, OriginGuard};
//! use keysheath::store::FileStore;
//! use keysheath::source::KeyRef;
//! use keysheath::oauth::{KeeperSettings, LoopbackListener, OAuthApp, TokenKeeper};
//!
//! let secret: KeyRef = "systemd:katana_client_secret".parse()?;
//! let app = OAuthApp::katana("my-client-id", secret.source()?)?;
//! let store = FileStore::new("/var/lib/shop-sync/katana-grant");
//!
//! // Once, with a person.
//! let listener = LoopbackListener::bind(0)?;
//! let sign_in = app.sign_in(listener.redirect_uri())?;
//! println!("open {}", sign_in.url());
//! let code = listener.wait(&sign_in, Duration::from_secs(300))?;
//! app.exchange(sign_in, code)?.save(&store)?;
//!
//! // From then on, in each process.
//! let keeper = TokenKeeper::start(app, store, KeeperSettings::new())?;
//! let layer = BearerLayer::new(keeper.handle(), OriginGuard::new());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answer;
mod app;
mod error;
mod grant;
mod keeper;
mod lease;
mod sign_in;
mod tokens;

pub use app::{Endpoints, OAuthApp};
pub use error::{AppProblem, GrantError, KeeperError, KeeperProblem, SetupError, SignInError, TokenError};
pub use keeper::{GrantState, KeeperEvent, KeeperSettings, KeeperStatus, TokenKeeper};
pub use sign_in::{AuthorizationCode, LoopbackListener, SignIn};
pub use tokens::{GrantView, Tokens};
