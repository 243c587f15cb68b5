//! OAuth 2.0 for apps that users grant access: signing in once, and keeping an access token fresh from then
//! on.
//!
//! Katana requires it of publicly available apps that access the data of others. A person signs in at
//! Katana's page and agrees; the app gets a code, and for it an **access token**, which is sent as a key is,
//! and a **refresh token**, which brings the next two. Together they are the **grant**: one document in a
//! [`DocumentStore`](crate::store::DocumentStore).
//!
//! 1. [`OAuthApp`] is the app: its client id, the source of its client secret, and its server.
//! 2. [`OAuthApp::sign_in`] gives the URL for the person. The code comes back by [`SignIn::answer`] at a web
//!    server, or by a [`LoopbackListener`] in a command-line tool. [`OAuthApp::exchange`] turns it into
//!    [`Tokens`], and [`Tokens::save`] writes them as the grant.
//! 3. A [`TokenKeeper`] publishes the access token to a [`KeyHandle`](crate::handle::KeyHandle) and refreshes
//!    it ahead of its end, in as many processes and on as many machines as share the store.
//!    [`BearerLayer`](crate::client::BearerLayer) sends it like a key: if it is refused early, the request
//!    waits for a refresh and is repeated once. The keeper's [events](KeeperSettings::on_event), and with the
//!    feature `tracing` its lines, say when a person is needed.
//! 4. [`OAuthApp::grant_in`] reads a grant without a keeper, such as before a start or in a monitor.
//!
//! # One refresh at a time
//! Each refresh token can be used once. If an old one is used, the server assumes that it was stolen and
//! revokes the whole grant, the newest tokens included (RFC 9700, section 4.14.2; Katana documents it). So
//! the first process to refresh writes a **lease** into the grant's document, with compare-and-swap, and the
//! others wait for the outcome. It sends the refresh token in the first two thirds of the lease or not at
//! all.
//!
//! For other processes, a lease ends when it has passed by every clock that can tell:
//!
//! - **A running process** counts from when it first saw the lease, on its own monotonic clock. Wall clocks
//!   do not matter.
//! - **A process that has just started**, such as a cron job, goes by the date in the lease. On the holder's
//!   machine that is both the clock that counts from the machine's start (Linux) and the wall clock, so a
//!   wall clock that was set cannot end a lease early. On another machine it is the wall clock and 30 min
//!   more. Clocks that differ by more than that can cost the grant: keep the clocks of machines that share
//!   one in step by NTP.
//!
//! The new refresh token is persisted before its access token is judged, and that before it is published. A
//! late answer is awaited until the end of the lease, and what has arrived by then is read. What a process
//! leaves that ends midway:
//!
//! | it ends | the grant |
//! |---|---|
//! | before it has the lease | unchanged |
//! | with the lease, before the server has the request | whole, *in doubt*: the next case looks alike |
//! | after that, before the tokens are persisted | lost with the answer; *in doubt* until it is tried |
//! | after the tokens are persisted | whole: other processes publish them |
//!
//! A grant in doubt keeps its access token active while that is valid. The old refresh token is tried again
//! only at the last moment, or when the access token is refused, because that ends the grant for good if the
//! server has used it up. Meanwhile [`KeeperStatus::state`] is [`GrantState::InDoubt`], and
//! [`KeeperEvent::InDoubt`] was sent: ask a person to sign in again. The protocol allows no better. An answer
//! that was lost on the way leaves the same doubt.
//!
//! # Telling grants apart
//! Each sign-in has a random id. The first one in a place begins the lineage of that place, and a later
//! sign-in that is saved there continues it: keepers take its tokens and send [`KeeperEvent::Replaced`]. The
//! grant of another place, such as another account's, is never taken for it: a keeper that finds one there
//! reports [`KeeperProblem::OtherGrant`].
//!
//! An **older copy** that is put back, such as from a backup, has a used refresh token. A running keeper that
//! has the newest grant writes it back at its next read ([`KeeperEvent::WrittenBack`]). If no keeper runs, or
//! a process starts before that read and a refresh is due, the copy is used, and a person must sign in again:
//! do not restore grants.
//!
//! # Refusals
//! Only the server's own `invalid_grant` refuses a grant ([`GrantState::Refused`]: a person must sign in
//! again). After an unreachable server, a 429, a 5xx or a proxy's page, the token stays active while it is
//! valid, and attempts back off.
//!
//! # Documented by Katana
//! Both endpoints, `scope=offline_access`, the audience, the form-encoded request with the client secret in
//! its body, and that refresh tokens rotate. Not documented: `state` and PKCE, which are sent nevertheless
//! (RFC 9700; PKCE [can be turned off](OAuthApp::without_pkce)), and the lifetime and the format of tokens.
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
